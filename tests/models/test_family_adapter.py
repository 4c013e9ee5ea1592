"""Every family against transformers' own processing and forward pass."""

import numpy as np
import pytest
import torch
from tiny_families import picture, tiny_family

from vsel_platform.errors import DataError, ModelError
from vsel_platform.models.attention import IMPLEMENTATION
from vsel_platform.models.families import FAMILIES
from vsel_platform.signals.losses import ALL_CONDITIONS, LossRow, answer_losses

TALK = [("user", "<image>\nWhat colour is the bus?"), ("assistant", "It is red and white."),
        ("user", "How many people?"), ("assistant", "Two people.")]  # fmt: skip
ROWS = {
    "one image": LossRow("a", TALK, ["p"]),
    "same image": LossRow("b", [("user", "<image>\nIs there a dog?"), ("assistant", "A dog on a mat.")], ["p"]),
    "two images": LossRow("c", [("user", "<image>\n<image>\nWhich is red?"), ("assistant", "Two.")], ["q", "p"]),
    "image inside": LossRow("d", [("user", "Describe <image> in detail."), ("assistant", "The street.")], ["r"]),
    "text only": LossRow("e", [("user", "What is there?"), ("assistant", "There is a cat.")]),
    "system": LossRow("f", [("system", "A chat."), *TALK], ["s"]),
}


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def family(request):
    return tiny_family(request.param)


def content(text):
    """Parts of a user turn as a newcomer to the family would write them."""
    parts, rest = [], text
    while "<image>" in rest:
        before, rest = rest.split("<image>", 1)
        if before.removesuffix("\n"):
            parts.append({"type": "text", "text": before.removesuffix("\n")})
        parts.append({"type": "image"})
        rest = rest.removeprefix("\n")
    return [*parts, {"type": "text", "text": rest}] if rest or not parts else parts


def official(family, row, turns=None, images=None, *, prompt=False):
    """Model inputs of a row by transformers' own means."""
    turns, images = row.turns if turns is None else turns, row.images if images is None else images
    messages = [{"role": role, "content": content(text)} for role, text in turns]
    text = family.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
    inputs = {}
    if images:
        pictures, tiled = [picture(name) for name in images], FAMILIES[family.model_type].decoder == "text_model"
        options = {"return_row_col_info": True} if tiled else {}
        inputs = dict(family.image_processor([pictures], return_tensors="pt", **options))
        token = "<|image_pad|>" if "qwen" in family.model_type else "<image>"
        first, *rest = text.split(token)
        text = first + "".join(family.processor(inputs, i) + piece for i, piece in enumerate(rest))
        for name in ("rows", "cols"):
            inputs.pop(name, None)
    inputs["input_ids"] = torch.tensor([family.tokenizer(text).input_ids])
    if "qwen" in family.model_type:
        inputs["mm_token_type_ids"] = (inputs["input_ids"] == family.model.config.image_token_id).int()
    return inputs


def target_losses(family, adapter, row, condition):
    """Sum of the targets' loss of one row alone through transformers' own forward pass, and how many there are."""
    from vsel_platform.models.rendering import changed

    turns = changed(row.turns, condition)
    inputs = official(family, row, turns, [] if condition == "no_image" else row.images)
    with torch.no_grad():
        logits = family.model(**inputs).logits[0].double().log_softmax(-1)
    ids = inputs["input_ids"][0]
    answers = [text for role, text in turns if role == "assistant"]
    places = spans_of(family.tokenizer, ids, answers)
    return float(-sum(logits[i - 1, ids[i]] for i in places)), len(places)


def spans_of(tokenizer, ids, answers):
    """Places of the tokens of answers, which stand in the decoded text in this order, and of the token behind each."""
    pieces = [tokenizer.decode([i]) for i in ids.tolist()]
    ends = np.cumsum([len(piece) for piece in pieces])
    text, places, start = "".join(pieces), [], 0
    for answer in answers:
        start = text.index(answer, start)
        stop = start + len(answer)
        own = [i for i, end in enumerate(ends) if end > start and end - len(pieces[i]) < stop]
        places += [*own, own[-1] + 1]
        start = stop
    return places


def test_losses_are_those_of_the_rows_alone_under_every_condition(family):
    adapter = family.adapter()
    rows = list(ROWS.values())
    found = {
        (value.sample_id, value.condition): value
        for batch in answer_losses(adapter, rows, picture, conditions=ALL_CONDITIONS)
        for value in batch.values
    }
    assert len(found) == 3 * len(rows) - 1
    for row in rows:
        for condition in ALL_CONDITIONS if row.images else ALL_CONDITIONS[:2]:
            expected, count = target_losses(family, adapter, row, condition)
            value = found[row.sample_id, condition]
            assert value.n_tokens == count, (row, condition)
            assert value.loss_sum == pytest.approx(expected, rel=1e-4), (row, condition)


def shown(adapter, row):
    """(features, what the prompt has to know) of a row's images."""
    from vsel_platform.models.vlm import ShownImage

    inputs = [adapter.preprocess(picture(name)) for name in row.images]
    features = adapter.row_features(adapter.features(inputs))
    return features, [ShownImage(len(f), i.layout) for f, i in zip(features, inputs, strict=True)]


def rendered(adapter, row, **options):
    features, images = shown(adapter, row)
    return adapter.render(row.turns, len(row.images), shown=images, **options), features


@pytest.mark.parametrize("name", ROWS)
def test_tokens_are_those_of_the_own_processor_and_targets_decode_to_the_answers(family, name):
    adapter, row = family.adapter(), ROWS[name]
    found, _ = rendered(adapter, row)
    assert found.input_ids.tolist() == official(family, row)["input_ids"][0].tolist()
    answers = [text for role, text in row.turns if role == "assistant"]
    end = family.tokenizer.eos_token
    for number, answer in enumerate(answers):
        own = found.input_ids[found.answer_index == number]
        assert family.tokenizer.decode(own).strip() == f"{answer}{end}".strip()
    words = "".join(family.tokenizer.decode(found.input_ids[found.is_question]).split())
    asked = "".join(text.replace("<image>", "") for role, text in row.turns if role == "user")
    assert words == "".join(asked.split())


def test_attention_and_states_are_those_of_the_eager_model(family):
    from vsel_platform.models.vlm import AttentionRows

    adapter = family.adapter()
    rows = [ROWS["one image"], ROWS["same image"]]
    ready = [rendered(adapter, row) for row in rows]
    places = [adapter.image_places(row) for row, _ in ready]
    queries = [
        np.flatnonzero(row.is_question & (np.arange(len(row)) > p[0]))
        for (row, _), p in zip(ready, places, strict=True)
    ]
    with torch.no_grad():
        states = adapter.layer_states(
            [row for row, _ in ready], [f for _, f in ready], layers=[1], attention=AttentionRows([0], queries, places)
        )
    text = family.model.get_decoder().config
    before, text._attn_implementation = text._attn_implementation, "eager"
    try:
        for i, row in enumerate(rows):
            layer, kept = family.model.get_decoder().layers[0], {}
            handles = [
                layer.self_attn.register_forward_hook(lambda m, a, o, k=kept: k.update(weights=o[1])),
                layer.register_forward_hook(
                    lambda m, a, o, k=kept: k.update(hidden=o[0] if isinstance(o, tuple) else o)
                ),
            ]
            with torch.no_grad():
                family.model(**official(family, row))
            for handle in handles:
                handle.remove()
            mass = kept["weights"][0].mean(0)[queries[i]].mean(0)[places[i]]
            torch.testing.assert_close(states.mass[0][i, : len(places[i])], mass, rtol=1e-4, atol=1e-6)
            hidden = kept["hidden"].reshape(-1, kept["hidden"].shape[-1])
            torch.testing.assert_close(states.hidden[1][i, : len(hidden)], hidden, rtol=1e-4, atol=1e-4)
    finally:
        text._attn_implementation = before
    assert before != IMPLEMENTATION


def test_answers_are_those_of_a_loop_without_cache(family):
    adapter = family.adapter()
    rows = [ROWS["same image"], ROWS["image inside"], ROWS["two images"]]
    prompts, features = [], []
    for row in rows:
        own, images = shown(adapter, row)
        prompts.append(adapter.render_prompt(row.turns[:1], len(images), images))
        features.append(own)
    answers = adapter.generate(prompts, features, max_tokens=4)
    for row, answer in zip(rows, answers, strict=True):
        inputs = official(family, row, row.turns[:1], prompt=True)
        for token in answer.token_ids:
            with torch.no_grad():
                logits = family.model(**inputs).logits[0, -1]
            assert int(logits.argmax()) == token
            inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([[token]])], dim=1)
            if "mm_token_type_ids" in inputs:
                inputs["mm_token_type_ids"] = (inputs["input_ids"] == family.model.config.image_token_id).int()
        assert answer.attention.shape == (len(answer.token_ids), sum(len(f) for f in features[rows.index(row)]))


def test_rows_longer_than_the_limit_are_cut_and_counted(family):
    adapter = family.adapter(max_tokens=24)
    found, _ = rendered(adapter, ROWS["one image"])
    whole, _ = rendered(family.adapter(), ROWS["one image"])
    assert len(found) == 24
    assert found.n_cut == len(whole) - 24
    assert found.positions is None or found.positions.shape == (3, 24)


def test_limit_that_holds_no_conversation_is_refused_with_its_name(family):
    with pytest.raises(ModelError, match=r"vlm.max_tokens: 2 is too short: .* has \d+ tokens"):
        family.adapter(max_tokens=2)


def test_images_have_to_be_described(family):
    with pytest.raises(ModelError, match="0 of 1 images are described"):
        family.adapter().render(TALK, 1)


def test_image_tokens_in_the_words_of_a_row_are_refused(family):
    adapter = family.adapter()
    token = "<|image_pad|>" if "qwen" in family.model_type else "<|video_pad|>"
    row = LossRow("x", [("user", f"What is {token}?"), ("assistant", "Red.")])
    if token == "<|image_pad|>":
        with pytest.raises(DataError, match="1 image tokens where its images have 0"):
            rendered(adapter, row)
    else:
        assert len(rendered(adapter, row)[0].input_ids)
