"""Greedy answers and their attention, against `generate` of transformers with whole maps, one row at a time."""

import copy
import dataclasses
from functools import cache

import numpy as np
import pytest
import torch
from tiny_llava import IMAGE_TOKENS, picture, tiny_adapter, tiny_model, tiny_tokenizer
from transformers import LlavaForConditionalGeneration

from vsel_platform.models.generation import generate_with_attention

pytestmark = pytest.mark.usefixtures("_prefixes")

STEPS = 8
NEVER = -1
ADAPTER = tiny_adapter(model=tiny_model(layers=3))
QUESTIONS = {
    "short": ("<image>\nWhat?", ["image0"]),
    "long": ("<image>\nHow many people are there on the street? Describe the picture in detail.", ["image1"]),
    "late": ("Where is the dog?\n<image>", ["image2"]),
    "double": ("<image> and <image>\nwhich one?", ["image0", "image3"]),
    "text": ("Where is the cat?", []),
}


def changed(**text):
    """The tiny model with other weights and a text config that differs."""
    config = copy.deepcopy(tiny_model(layers=2).config)
    for name, value in text.items():
        setattr(config.text_config, name, value)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return LlavaForConditionalGeneration(config).eval()


def mistral(sliding_window):
    """A model whose decoder looks back over a window only."""
    from transformers import MistralConfig

    config = copy.deepcopy(tiny_model().config)
    config.text_config = MistralConfig(
        vocab_size=config.text_config.vocab_size, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, initializer_range=0.3, sliding_window=sliding_window,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlavaForConditionalGeneration(config).eval()


@cache
def features(adapter, image):
    with torch.inference_mode():
        return adapter.project(adapter.tower_features(adapter.preprocess(picture(image))[None]))[0]


def prompts(adapter, names=tuple(QUESTIONS)):
    return [adapter.render_prompt([("user", QUESTIONS[n][0])], len(QUESTIONS[n][1])) for n in names]


def generated(names=tuple(QUESTIONS), adapter=ADAPTER, end=NEVER, steps=STEPS):
    shown = [[features(adapter, image) for image in QUESTIONS[name][1]] for name in names]
    return generate_with_attention(adapter, prompts(adapter, names), shown, end_token=end, max_tokens=steps)


def expected(name, adapter=ADAPTER, end=NEVER, steps=STEPS):
    """Tokens and attention [T, P] of one row from all maps of all steps."""
    model = copy.deepcopy(adapter.model)
    model.set_attn_implementation("eager")
    (prompt,) = prompts(adapter, [name])
    images = QUESTIONS[name][1]
    pixels = [torch.from_numpy(adapter.preprocess(picture(image))) for image in images]
    with torch.inference_mode():
        output = model.generate(
            input_ids=torch.from_numpy(prompt.input_ids)[None],
            max_new_tokens=steps,
            do_sample=False,
            eos_token_id=end if end >= 0 else None,
            pad_token_id=0,
            output_attentions=True,
            return_dict_in_generate=True,
            **({"pixel_values": torch.stack(pixels)} if images else {}),
        )
    tokens = output.sequences[0, len(prompt) :].numpy()
    places = adapter.image_places(prompt)
    looks = [np.mean([layer[0, :, -1].mean(0).numpy() for layer in step], axis=0)[places] for step in output.attentions]
    return tokens, np.stack(looks)


def assert_same(answer, tokens, attention):
    assert answer.token_ids.tolist() == tokens.tolist()
    assert answer.attention.dtype == np.float32
    np.testing.assert_allclose(answer.attention, attention, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", QUESTIONS)
def test_tokens_and_attention_are_those_of_generate(name):
    (answer,) = generated([name])
    assert answer.attention.shape == (STEPS, IMAGE_TOKENS * len(QUESTIONS[name][1]))
    assert_same(answer, *expected(name))


def test_a_batch_of_prompts_of_different_lengths_gives_what_each_row_alone_gives():
    lengths = [len(prompt) for prompt in prompts(ADAPTER)]
    assert max(lengths) > min(lengths) + STEPS
    answers = generated()
    for name, answer in zip(QUESTIONS, answers, strict=True):
        assert_same(answer, *expected(name))
    for name, answer in zip(reversed(QUESTIONS), generated(tuple(reversed(QUESTIONS))), strict=True):
        assert_same(answer, *expected(name))


@pytest.mark.parametrize("step", [0, 1, 4])
def test_a_row_that_ends_early_keeps_its_end_token_and_disturbs_no_other(step):
    end = int(expected("short")[0][step])
    for name, answer in zip(QUESTIONS, generated(end=end), strict=True):
        tokens, attention = expected(name, end=end)
        assert_same(answer, tokens, attention)
        assert (answer.token_ids == end).sum() == (answer.token_ids[-1] == end)
    assert len(generated(["short"], end=end)[0].token_ids) <= step + 1


def test_generation_stops_once_every_row_has_ended(monkeypatch):
    end = int(expected("short")[0][1])
    length = len(generated(["short"], end=end)[0].token_ids)
    calls = []
    embeddings = ADAPTER.token_embeddings
    monkeypatch.setattr(ADAPTER, "token_embeddings", lambda ids: calls.append(ids) or embeddings(ids))
    generated(["short"], end=end, steps=100)
    assert len(calls) == length - 1


@pytest.mark.parametrize("steps", [1, 3])
def test_an_answer_has_at_most_the_tokens_asked_for(steps):
    for name, answer in zip(QUESTIONS, generated(steps=steps), strict=True):
        assert_same(answer, *expected(name, steps=steps))
        assert len(answer.token_ids) == len(answer.attention) == steps


@pytest.mark.parametrize("key_heads", [1, 2])
def test_decoders_whose_heads_share_keys(key_heads):
    adapter = tiny_adapter(model=changed(num_key_value_heads=key_heads))
    for name, answer in zip(QUESTIONS, generated(adapter=adapter), strict=True):
        assert_same(answer, *expected(name, adapter))


def test_prompts_without_images_have_no_attention_to_any():
    answers = generated(("text", "text"))
    assert [answer.attention.shape for answer in answers] == [(STEPS, 0)] * 2
    assert_same(answers[1], *expected("text"))


def test_padding_pushes_no_token_out_of_a_sliding_window():
    model = mistral(sliding_window=200)
    window = max(len(prompt) for prompt in prompts(tiny_adapter(model=model, max_tokens=200))) + 1
    adapter = tiny_adapter(model=mistral(window), max_tokens=window)
    names = ("short", "long")
    assert len(prompts(adapter, names)[0]) + STEPS <= window
    assert_same(generated(names, adapter)[0], *expected("short", adapter))


def test_the_model_s_own_end_token_ends_an_answer():
    adapter = tiny_adapter()
    (prompt,), shown = prompts(adapter, ["short"]), [[features(adapter, "image0")]]
    tokens = adapter.generate([prompt], shown, max_tokens=STEPS)[0].token_ids.tolist()
    own, third = int(tiny_tokenizer().eos_token_id), tokens[2]
    assert own not in tokens
    with torch.no_grad():
        rows = adapter.model.lm_head.weight
        rows[[own, third]] = rows[[third, own]]
    found = adapter.generate([prompt], shown, max_tokens=STEPS)[0].token_ids.tolist()
    assert found == [own if token == third else token for token in tokens[: tokens.index(third) + 1]]


def test_half_precision_gives_attention_in_float32():
    adapter = tiny_adapter(model=tiny_model().to(torch.bfloat16))
    for answer in generated(adapter=adapter):
        assert answer.attention.dtype == np.float32
        assert np.isfinite(answer.attention).all()
        assert (answer.attention.sum(axis=1) < 1).all()


def test_the_model_is_left_as_it_was():
    config = ADAPTER.decoder.config
    before = config._attn_implementation
    generated(["short"])
    assert config._attn_implementation == before


SAME = {f"question {i}": f"<image>\n{text}" for i, text in enumerate(("What?", "Where is the dog?", "Why? Why?"))}


@pytest.fixture
def _same_image(monkeypatch):
    """Three questions about one picture, one about it behind other words, and another picture between them."""
    own = {name: (text, ["image0"]) for name, text in SAME.items()}
    own |= {"behind": ("Where is it?\n<image>", ["image0"]), "again": ("<image>\nWhat?", ["image0"])}
    for name, value in own.items():
        monkeypatch.setitem(QUESTIONS, name, value)


@pytest.mark.usefixtures("_same_image")
def test_prompts_of_the_same_image_share_their_beginning_and_answer_as_each_alone(monkeypatch):
    names = ("question 0", "long", "question 1", "behind", "question 2", "again", "text")
    widths = []
    inputs = ADAPTER.packed_inputs
    monkeypatch.setattr(
        ADAPTER, "packed_inputs", lambda groups, shown: widths.append([len(g) for g in groups]) or inputs(groups, shown)
    )
    answers = generated(names)
    assert widths == [[4, 1, 1, 1]]
    for name, answer in zip(names, answers, strict=True):
        assert_same(answer, *expected(name))
    assert answers[0].token_ids.tolist() == answers[5].token_ids.tolist()  # the very same question twice


@pytest.mark.usefixtures("_same_image")
def test_branches_that_end_early_disturb_no_other():
    names = tuple(SAME)
    end = int(expected("question 1")[0][2])
    for name, answer in zip(names, generated(names, end=end), strict=True):
        assert_same(answer, *expected(name, end=end))


@pytest.mark.usefixtures("_same_image")
def test_models_that_count_positions_in_three_ways_share_beginnings_too():
    from tiny_families import picture as family_picture
    from tiny_families import tiny_family

    from vsel_platform.models.vlm import ShownImage

    adapter = tiny_family("qwen3_vl").adapter()
    image = adapter.preprocess(family_picture("p"))
    (feature,) = adapter.features([image])
    shown = [ShownImage(len(feature), image.layout)]
    asked = [adapter.render_prompt([("user", text)], 1, shown) for text in SAME.values()]
    together = adapter.generate(asked, [[feature]] * len(asked), max_tokens=4)
    for prompt, answer in zip(asked, together, strict=True):
        (alone,) = adapter.generate([prompt], [[feature]], max_tokens=4)
        assert_same(answer, alone.token_ids, alone.attention)


def test_a_group_is_no_longer_than_its_attention_mask_may_be(monkeypatch):
    from vsel_platform.models import generation

    asked = prompts(ADAPTER, ("short",)) * 3
    seen = [ADAPTER.image_places(prompt) for prompt in asked]
    longer = [dataclasses.replace(p, input_ids=np.append(p.input_ids, [i] * 5)) for i, p in enumerate(asked)]
    assert generation.prompt_groups(["a"] * 3, longer, seen) == [[0, 1, 2]]
    monkeypatch.setattr(generation, "GROUP_TOKENS", len(asked[0]) + 10)
    assert generation.prompt_groups(["a"] * 3, longer, seen) == [[0, 1], [2]]
    assert generation.prompt_groups(["a", "b", "a"], longer, seen) == [[0, 2], [1]]
    assert generation.prompt_groups(["", "", ""], longer, seen) == [[0], [1], [2]]
