"""Where a model looks while it answers in a word: against whole maps of all layers, whatever batches and windows do."""

import copy
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_llava import IMAGE_TOKENS, conversation, picture, tiny_adapter, tiny_model

from vsel_platform.errors import DataError, OutOfMemoryError
from vsel_platform.models import batching
from vsel_platform.models.vlm import GeneratedAnswer
from vsel_platform.signals.attention_maps import (
    BRIEF_INSTRUCTION,
    attention_fingerprint,
    attention_map,
    attention_maps,
    first_question,
    one_word_question,
    resample,
)
from vsel_platform.signals.losses import LossRow
from vsel_platform.signals.windows import WindowOptions

STEPS = 6
ADAPTER = tiny_adapter(model=tiny_model(layers=3))


def row(name, images, *turns):
    return LossRow(name, list(turns), images)


def user(text):
    return ("user", text)


def assistant(text):
    return ("assistant", text)


ROWS = [
    *(
        LossRow(f"row{i}", conversation("<image>\nWhat?" + " And the street?" * (i % 4), "Red."), [f"image{i % 3}"])
        for i in range(6)
    ),
    row("turns", ["image4"], user("<image>\nWhere?"), assistant("There."), user("How many?"), assistant("Two")),
    row("two", ["image0", "image5"], user("<image> and <image>\nwhich one?"), assistant("The dog.")),
    row(
        "one_of_two", ["image0", "image5"], user("<image>\nWhat?"), assistant("A cat."), user("<image>?"), assistant("")
    ),
    row("second", ["image0", "image5"], user("Look: <image>"), user("And <image>\nthis?"), assistant("A dog.")),
    row(
        "after", ["image1", "image2", "image3"], user("<image>"), user("What?"), assistant("?"), user("<image><image>")
    ),
    row("between", ["image6", "image7"], assistant("see <image>"), user("<image>\nWhere is it?"), assistant("There.")),
    row("later", ["image3"], user("Is there a cat?"), assistant("No."), user("<image>\nAnd here?"), assistant("Yes.")),
    row("brief", ["image2"], user("<image>\nWhat? Answer using a single word or phrase."), assistant("Red")),
]
# What each of them is asked, and about which images.
ASKED = {
    "turns": ("<image>\nWhere?", ["image4"]),
    "two": ("<image> and <image>\nwhich one?", ["image0", "image5"]),
    "one_of_two": ("<image>\nWhat?", ["image0"]),
    "second": ("And <image>\nthis?", ["image5"]),
    "after": ("<image>\nWhat?", ["image1"]),
    "between": ("<image>\nWhere is it?", ["image7"]),
    "later": ("<image>\nIs there a cat?", ["image3"]),
    "brief": ("<image>\nWhat? Answer using a single word or phrase.", ["image2"]),
}


def computed(rows=ROWS, images=picture, model=ADAPTER, answer_tokens=STEPS, grid=0, **options):
    """Maps and reasons of failure, by id."""
    batches = list(
        attention_maps(model, rows, images, answer_tokens=answer_tokens, grid=grid, options=WindowOptions(**options))
    )
    values = {value.sample_id: value for batch in batches for value in batch.values}
    return values, {failure.content_id: failure.reason for batch in batches for failure in batch.failures}


def oracle(question, images):
    """Attention float64 [T, P] and shares [P] of one question from all maps of `generate`, in plain Python."""
    text = question if question.endswith("phrase.") else question + BRIEF_INSTRUCTION
    prompt = ADAPTER.render_prompt([("user", text)], len(images))
    model = copy.deepcopy(ADAPTER.model)
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        output = model.generate(
            input_ids=torch.from_numpy(prompt.input_ids)[None],
            pixel_values=torch.from_numpy(np.stack([ADAPTER.preprocess(picture(image)) for image in images])),
            max_new_tokens=STEPS,
            do_sample=False,
            output_attentions=True,
            return_dict_in_generate=True,
        )
    vision = ADAPTER.image_places(prompt)
    steps = np.stack(
        [np.mean([layer[0, :, -1].double().mean(0).numpy() for layer in s], axis=0)[vision] for s in output.attentions]
    )
    maps = [step / (steps[-1] + 1e-10) for step in steps[:-1]]
    shares = sum(m / m.sum() for m in maps)
    return steps, shares / shares.sum()


def asked(r):
    return ASKED.get(r.sample_id, (r.turns[0][1], r.images))


@pytest.mark.parametrize("r", ROWS, ids=lambda r: r.sample_id)
def test_maps_are_those_of_all_layers_of_the_first_question_and_its_images(r):
    values, failures = computed([r])
    assert not failures
    value, (steps, shares) = values[r.sample_id], oracle(*asked(r))
    assert (value.n_steps, value.n_tokens) == (len(steps), IMAGE_TOKENS * len(asked(r)[1]))
    best = sorted(range(len(shares)), key=lambda i: -shares[i])[: max(1, int(len(shares) * 0.3))]
    assert value.top_tokens.tolist() == sorted(best)
    entropy = -sum(share * math.log(share) for share in shares)
    assert value.entropy == pytest.approx(entropy, abs=1e-5)
    assert value.sharpness == pytest.approx(1 - entropy / math.log(len(shares)), abs=1e-5)
    assert value.mass == pytest.approx(steps.sum(axis=1).mean(), abs=1e-5)


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([user("<image>\nWhat?"), assistant("a")], ("<image>\nWhat?", 0)),
        ([user("What?"), assistant("a")], ("<image>\nWhat?", 0)),
        ([user("What?\n<image>"), assistant("a")], ("What?\n<image>", 0)),
        ([("system", "Be brief."), user("<image> q"), assistant("a")], ("<image> q", 0)),
        ([user("lost <image>"), user("<image> used"), assistant("a")], ("<image> used", 1)),
        ([assistant("<image><image>"), user("<image> used"), assistant("a")], ("<image> used", 2)),
        ([user("<image>"), user("<image>"), user("bare"), assistant("a"), user("<image>")], ("<image>\nbare", 1)),
        ([user("bare"), assistant("a"), user("<image>"), assistant("b")], ("<image>\nbare", 0)),
        ([user("<image> q")], None),
        ([assistant("a"), user("q")], None),
        ([user("q"), ("system", "s"), assistant("a")], None),
        ([], None),
    ],
)
def test_the_first_question_is_the_first_user_turn_that_is_answered(turns, expected):
    found = first_question(turns)
    assert found == (expected and (expected[0] + BRIEF_INSTRUCTION, expected[1]))


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What?", "What? Please answer the question using a single word or phrase."),
        ("What? \n", "What? Please answer the question using a single word or phrase."),
        ("What?\nAnswer the question using a single word or phrase.", None),
        ("What? USING A SINGLE WORD OR PHRASE.", None),
        ("using a single word or phrase. Why?", "using a single word or phrase. Why?" + BRIEF_INSTRUCTION),
    ],
)
def test_brevity_is_asked_for_once(question, expected):
    found = one_word_question(question)
    assert found == (expected or question)
    assert one_word_question(found) == found


@pytest.mark.parametrize(
    "options",
    [{"batch_tokens": 1}, {"batch_tokens": 300}, {"window_rows": 1}, {"window_rows": 5}, {"decode_workers": 0}],
)
def test_batches_and_windows_do_not_change_the_maps(options):
    assert_equal(computed(**options)[0], computed()[0])


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for sample_id, value in found.items():
        other = expected[sample_id]
        assert (value.n_steps, value.n_tokens) == (other.n_steps, other.n_tokens)
        assert value.top_tokens.tolist() == other.top_tokens.tolist()
        assert (value.entropy, value.mass) == pytest.approx((other.entropy, other.mass), abs=1e-5)


def test_the_order_of_the_rows_does_not_change_the_maps():
    shuffled = random.Random(0).sample(ROWS, len(ROWS))
    values, _ = computed(shuffled, window_rows=5)
    assert list(values) == [r.sample_id for r in shuffled]
    assert_equal({r.sample_id: values[r.sample_id] for r in ROWS}, computed()[0])


def test_going_on_behind_a_finished_window_gives_the_same_bits():
    options = WindowOptions(window_rows=4)
    whole = list(attention_maps(ADAPTER, ROWS, picture, answer_tokens=STEPS, options=options))
    rest = list(attention_maps(ADAPTER, ROWS[4:], picture, answer_tokens=STEPS, options=options))
    for before, after in zip(whole[1:], rest, strict=True):
        assert [(v.sample_id, v.entropy, v.mass) for v in before.values] == [
            (v.sample_id, v.entropy, v.mass) for v in after.values
        ]


def test_each_image_passes_the_tower_once(monkeypatch):
    seen = []
    original = ADAPTER.tower_features
    monkeypatch.setattr(ADAPTER, "tower_features", lambda p: (seen.append(len(p)), original(p))[1])
    computed()
    assert sum(seen) == len({image for r in ROWS for image in r.images})


def test_rows_that_cannot_be_asked_fail_with_their_reason():
    bad = [
        LossRow("text", conversation("hi", "there")),
        LossRow("unanswered", [user("<image>\nWhat?")], ["image0"]),
        LossRow("tags", conversation("<image> <image>", "there"), ["image0"]),
        LossRow("behind", [user("<image><image>"), user("<image> q"), assistant("a")], ["image0", "image1"]),
    ]
    values, failures = computed([*bad, ROWS[0]])
    assert failures == {
        "text": "no_image",
        "unanswered": "no_question",
        "tags": "row_not_renderable",
        "behind": "row_not_renderable",
    }
    assert_equal(values, {"row0": computed()[0]["row0"]})


def test_a_broken_image_fails_its_rows_and_no_other():
    def images(image):
        if image == "image0":
            raise OSError("truncated")
        return picture(image)

    values, failures = computed(images=images)
    broken = [r.sample_id for r in ROWS if "image0" in r.images]
    assert failures == dict.fromkeys(broken, "image_unreadable")
    assert_equal(values, {i: value for i, value in computed()[0].items() if i not in broken})


def test_a_question_that_does_not_fit_fails():
    text, count = first_question(ROWS[0].turns)[0], 1
    length = len(ADAPTER.render_prompt([user(text)], count))
    cut, fits = (tiny_adapter(model=tiny_model(layers=3), max_tokens=n) for n in (length - 1, length))
    assert computed(ROWS[:1], model=cut) == ({}, {"row0": "prompt_too_long"})
    assert_equal(computed(ROWS[:1], model=fits)[0], computed(ROWS[:1])[0])


def test_an_answer_of_one_token_has_no_map():
    assert computed(ROWS[:2], answer_tokens=1) == ({}, dict.fromkeys(["row0", "row1"], "no_relative_attention"))


def test_attention_that_is_not_finite_is_a_failure():
    model = tiny_model()
    with torch.no_grad():
        model.model.language_model.layers[0].self_attn.q_proj.weight[:] = float("nan")
    values, failures = computed(ROWS[:2], model=tiny_adapter(model=model))
    assert (values, failures) == ({}, dict.fromkeys(["row0", "row1"], "non_finite_attention"))


def test_a_row_that_does_not_fit_into_memory_alone_is_named(monkeypatch):
    monkeypatch.setattr(batching, "free_memory", lambda: None)
    model = tiny_adapter()
    monkeypatch.setattr(model, "generate", lambda *_, **__: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(OutOfMemoryError, match=r"row turns does not fit"):
        computed([r for r in ROWS if r.sample_id == "turns"], model=model)


def answer(attention):
    found = np.array(attention, np.float32)
    return GeneratedAnswer(np.arange(len(found)), found)


def test_a_map_says_how_sharp_the_look_is_and_how_much_the_image_gets():
    even = attention_map("a", answer([[0.1] * 4, [0.2] * 4]), 0, 1)
    assert (even.entropy, even.sharpness) == pytest.approx((math.log(4), 0), abs=1e-6)
    assert even.mass == pytest.approx(0.6)
    assert even.top_tokens.tolist() == [0]
    sharp = attention_map("b", answer([[0, 0, 0.3, 0], [0.1] * 4]), 0, 1)
    assert (sharp.entropy, sharp.sharpness, sharp.top_tokens.tolist()) == (0, 1, [2])
    assert attention_map("c", answer([[0.5], [0.2]]), 0, 1).sharpness == 1


def test_the_last_step_says_where_the_model_looks_anyway():
    value = attention_map("a", answer([[0.4, 0.2, 0.2, 0.1], [0.4, 0.1, 0.2, 0.1]]), 0, 1)
    assert value.top_tokens.tolist() == [1]


def grids(n_images, side):
    return st.lists(st.floats(0, 1, width=32), min_size=n_images * side**2, max_size=n_images * side**2)


@given(st.data(), st.integers(1, 3), st.integers(1, 6), st.integers(1, 7))
@settings(max_examples=60, deadline=None)
def test_resampling_keeps_the_sum_of_every_image(data, n_images, side, grid):
    shares = np.array(data.draw(grids(n_images, side)), np.float32)
    found = resample(shares, grid, n_images)
    assert found.dtype == np.float32
    assert len(found) == n_images * grid**2
    assert (found >= 0).all()
    before, after = (values.reshape(n_images, -1).sum(axis=1, dtype=np.float64) for values in (shares, found))
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)


@given(st.data(), st.integers(1, 2), st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_resampling_by_a_whole_factor_adds_up_and_splits_evenly(data, n_images, side, factor):
    coarse = np.array(data.draw(grids(n_images, side)), np.float32)
    blocks = coarse.reshape(n_images, side, side).repeat(factor, axis=1).repeat(factor, axis=2) / factor**2
    np.testing.assert_allclose(resample(coarse, side * factor, n_images), blocks.reshape(-1), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(resample(blocks.reshape(-1), side, n_images), coarse, rtol=1e-5, atol=1e-7)


def test_resampling_splits_a_cell_by_the_area_that_is_covered():
    shares = np.array([9, 0, 0, 0, 0, 18, 0, 0, 0], np.float32)
    np.testing.assert_allclose(resample(shares, 2, 1), [9, 9, 0, 9], rtol=1e-6)
    np.testing.assert_array_equal(resample(shares, 3, 1), shares)


@pytest.mark.parametrize(("tokens", "n_images"), [(5, 1), (8, 1), (9, 2)])
def test_tokens_that_are_no_square_are_refused(tokens, n_images):
    with pytest.raises(DataError, match=f"{tokens} image tokens of {n_images} image"):
        resample(np.ones(tokens, np.float32), 3, n_images)


def test_maps_on_a_common_grid_have_its_cells_for_every_image():
    plain, gridded = computed()[0], computed(grid=3)[0]
    for r in ROWS:
        value, other = gridded[r.sample_id], plain[r.sample_id]
        n_images = len(asked(r)[1])
        assert value.n_tokens == 9 * n_images
        assert len(value.top_tokens) == int(9 * n_images * 0.3)
        assert value.mass == other.mass
    same = computed(grid=2)[0]
    assert_equal(same, plain)


def test_no_rows_give_no_batches():
    assert list(attention_maps(ADAPTER, [], picture)) == []


def test_the_fingerprint_follows_model_answer_and_grid():
    base = attention_fingerprint(ADAPTER, 16, 0)
    assert attention_fingerprint(ADAPTER, 16, 0) == base
    others = {
        attention_fingerprint(ADAPTER, 8, 0),
        attention_fingerprint(ADAPTER, 16, 24),
        attention_fingerprint(tiny_adapter(template="plain"), 16, 0),
    }
    assert len(others | {base}) == 4
