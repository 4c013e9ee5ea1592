"""ScalSelect's vectors against whole maps of a whole model."""

import random

import numpy as np
import pytest
import torch
from tiny_llava import IMAGE_TOKENS, conversation, picture, tiny_adapter, tiny_model

from vsel_platform.errors import OutOfMemoryError
from vsel_platform.models import batching
from vsel_platform.models.vlm import RenderedRow
from vsel_platform.signals.losses import LossRow
from vsel_platform.signals.vision_representations import (
    instruction_places,
    representations_fingerprint,
    vision_representations,
)
from vsel_platform.signals.windows import WindowOptions

ADAPTER = tiny_adapter(model=tiny_model(layers=3))
NO_WORDS = LossRow("bare", conversation("<image>", "A dog on a mat."), ["image1"])
WORDS_BEFORE = LossRow("before", conversation("What colour is the bus?\n<image>", "It is red."), ["image2"])
ROWS = [
    *(
        LossRow(
            f"row{i}", conversation("<image>\nWhat?" + " And the street?" * (i % 4), "It is red."), [f"image{i % 3}"]
        )
        for i in range(7)
    ),
    LossRow("turns", conversation("<image>\nWhere?", "On the street.", "How many people?", "Two"), ["image4"]),
    LossRow("late", conversation("Where?", "There.", "And <image> this?", "A cat.", "Why?", "No."), ["image4"]),
    LossRow("double", conversation("<image> and <image>\nwhich one?", "The dog."), ["image0", "image7"]),
    WORDS_BEFORE,
    NO_WORDS,
]
IMAGE_ID = int(ADAPTER.model.config.image_token_id)


def computed(rows=ROWS, images=picture, model=ADAPTER, threshold=0.9, **options):
    """Representations and reasons of failure, by id."""
    batches = list(vision_representations(model, rows, images, threshold=threshold, options=WindowOptions(**options)))
    values = {value.sample_id: value for batch in batches for value in batch.values}
    return values, {failure.content_id: failure.reason for batch in batches for failure in batch.failures}


def eager():
    model = tiny_model(layers=3)
    model.set_attn_implementation("eager")
    return model


EAGER = eager()


def oracle(row, threshold, *, words=None):
    """Vector and number of attended tokens, all layers and maps of one row, the choice in plain Python."""
    rendered = ADAPTER.render(row.turns, len(row.images))
    with torch.inference_mode():
        output = EAGER(
            input_ids=torch.from_numpy(rendered.input_ids)[None],
            pixel_values=torch.from_numpy(np.stack([ADAPTER.preprocess(picture(image)) for image in row.images])),
            output_attentions=True,
            output_hidden_states=True,
        )
    heads = output.attentions[0][0].double().numpy()
    states = output.hidden_states[1][0].double().numpy()
    vision = [i for i, token in enumerate(rendered.input_ids) if token == IMAGE_ID]
    words = words or [i for i in range(vision[0], len(rendered)) if rendered.is_question[i]]
    received = {v: sum(heads[h, w, v] for h in range(len(heads)) for w in words) for v in vision}
    chosen, share = [], 0.0
    for v in sorted(vision, key=lambda v: (-received[v], v)):
        if share >= threshold * sum(received.values()):
            break
        chosen.append(v)
        share += received[v]
    return states[chosen].mean(0), len(chosen)


@pytest.mark.parametrize("threshold", [0.5, 0.9])
def test_vectors_are_those_of_whole_maps_of_the_whole_model(threshold):
    rows = [row for row in ROWS if row not in (NO_WORDS, WORDS_BEFORE)]
    values, failures = computed(rows, threshold=threshold)
    assert not failures
    assert list(values) == [row.sample_id for row in rows]
    for row in rows:
        vector, count = oracle(row, threshold)
        value = values[row.sample_id]
        assert (value.n_attended, value.n_vision) == (count, IMAGE_TOKENS * len(row.images))
        assert value.vector.dtype == np.float32
        np.testing.assert_allclose(value.vector, vector, atol=1e-5)
    assert any(value.n_attended < value.n_vision for value in values.values())


@pytest.mark.parametrize("row", [NO_WORDS, WORDS_BEFORE], ids=lambda row: row.sample_id)
def test_without_words_behind_the_image_the_markers_of_the_prompt_look_at_it(row):
    values, _ = computed([row])
    rendered = ADAPTER.render(row.turns, 1)
    last_image = int(np.flatnonzero(rendered.input_ids == IMAGE_ID)[-1])
    first_answer = int(np.flatnonzero(rendered.answer_index >= 0)[0])
    vector, count = oracle(row, 0.9, words=list(range(last_image + 1, first_answer)))
    assert values[row.sample_id].n_attended == count
    np.testing.assert_allclose(values[row.sample_id].vector, vector, atol=1e-5)


def test_the_answer_has_no_part_in_the_vector():
    rows = [LossRow(str(i), conversation("<image>\nWhat?", answer), ["a"]) for i, answer in enumerate(["It is", "No"])]
    values, _ = computed(rows)
    np.testing.assert_allclose(values["0"].vector, values["1"].vector, atol=1e-6)


def test_the_question_decides_which_image_tokens_are_taken():
    questions = ["What?", "Where is the dog?", "How many people are there?", "red", "Describe the picture in detail."]
    rows = [LossRow(q, conversation(f"<image>\n{q}", "It is"), ["image0"]) for q in questions]
    values, _ = computed(rows, threshold=0.6)
    assert len({value.vector.tobytes() for value in values.values()}) > 1


def test_the_whole_share_takes_every_image_token():
    values, _ = computed(threshold=1.0)
    assert all(value.n_attended == value.n_vision for value in values.values())


@pytest.mark.parametrize(
    "options",
    [{"batch_tokens": 1}, {"batch_tokens": 150}, {"window_rows": 1}, {"window_rows": 5}, {"decode_workers": 0}],
)
def test_batches_and_windows_do_not_change_the_vectors(options):
    assert_equal(computed(**options)[0], computed()[0])


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for sample_id, value in found.items():
        assert value.n_attended == expected[sample_id].n_attended
        np.testing.assert_allclose(value.vector, expected[sample_id].vector, atol=1e-5)


def test_the_order_of_the_rows_does_not_change_the_vectors():
    shuffled = random.Random(0).sample(ROWS, len(ROWS))
    values, _ = computed(shuffled, window_rows=5)
    assert list(values) == [row.sample_id for row in shuffled]
    assert_equal({row.sample_id: values[row.sample_id] for row in ROWS}, computed()[0])


def test_going_on_behind_a_finished_window_gives_the_same_bits():
    options = WindowOptions(window_rows=4)
    whole = list(vision_representations(ADAPTER, ROWS, picture, options=options))
    rest = list(vision_representations(ADAPTER, ROWS[4:], picture, options=options))
    for before, after in zip(whole[1:], rest, strict=True):
        assert [v.vector.tobytes() for v in before.values] == [v.vector.tobytes() for v in after.values]


def test_only_the_first_layer_runs_and_each_image_passes_the_tower_once(monkeypatch):
    ran, seen = [], []
    layers = ADAPTER.model.model.language_model.layers
    handles = [layer.register_forward_hook(lambda *_, i=i: ran.append(i)) for i, layer in enumerate(layers)]
    original = ADAPTER.tower_features
    monkeypatch.setattr(ADAPTER, "tower_features", lambda p: (seen.append(len(p)), original(p))[1])
    computed()
    for handle in handles:
        handle.remove()
    assert set(ran) == {0}
    assert sum(seen) == len({image for row in ROWS for image in row.images})


def test_rows_without_images_fail_and_rows_that_do_not_render_too():
    bad = [
        LossRow("text", conversation("hi", "there")),
        LossRow("tags", conversation("hi", "there"), ["image0"]),
        LossRow("role", [("human", "<image>")], ["image0"]),
    ]
    values, failures = computed([*bad, ROWS[0]])
    assert failures == {"text": "no_image", "tags": "row_not_renderable", "role": "row_not_renderable"}
    assert_equal(values, {"row0": computed()[0]["row0"]})


def test_a_broken_image_fails_its_rows_and_no_other():
    def images(image):
        if image == "image0":
            raise OSError("truncated")
        return picture(image)

    values, failures = computed(images=images)
    broken = [row.sample_id for row in ROWS if "image0" in row.images]
    assert failures == dict.fromkeys(broken, "image_unreadable")
    assert_equal(values, {i: value for i, value in computed()[0].items() if i not in broken})


def test_an_image_behind_the_length_limit_fails_and_one_that_is_cut_keeps_what_is_left():
    first = int(np.flatnonzero(ADAPTER.render(ROWS[0].turns, 1).input_ids == IMAGE_ID)[0])
    cut_off = tiny_adapter(model=tiny_model(layers=3), max_tokens=first)
    assert computed(ROWS[:1], model=cut_off) == ({}, {"row0": "no_image_tokens"})
    cut = tiny_adapter(model=tiny_model(layers=3), max_tokens=first + 2)
    values, failures = computed(ROWS[:1], model=cut)
    assert (failures, values["row0"].n_vision) == ({}, 2)


def test_values_that_are_not_finite_are_failures():
    model = tiny_model()
    with torch.no_grad():
        model.model.language_model.layers[0].self_attn.q_proj.weight[:] = float("nan")
    values, failures = computed(ROWS[:2], model=tiny_adapter(model=model))
    assert (values, failures) == ({}, dict.fromkeys(["row0", "row1"], "non_finite_representation"))
    model = tiny_model()
    with torch.no_grad():
        model.model.language_model.layers[0].mlp.down_proj.weight[:] = float("inf")
    assert computed(ROWS[:1], model=tiny_adapter(model=model)) == ({}, {"row0": "non_finite_representation"})


def test_a_row_that_does_not_fit_alone_is_named(monkeypatch):
    monkeypatch.setattr(batching, "free_memory", lambda: None)
    model = tiny_adapter()
    monkeypatch.setattr(model, "layer_states", lambda *_, **__: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(OutOfMemoryError, match=r"row double does not fit"):
        computed([row for row in ROWS if row.sample_id == "double"], model=model)


def rendered(kinds):
    """A row from one letter per token: i image, q question, a answer, m marker."""
    return RenderedRow(
        np.arange(len(kinds)),
        np.array([0 if kind == "a" else -1 for kind in kinds]),
        is_question=np.array([kind == "q" for kind in kinds]),
    )


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ("mmiiqqmaa", [4, 5]),
        ("mqqiiqmaaqma", [5, 9]),
        ("miqiqmaa", [2, 4]),
        ("mqqiimmaam", [5, 6, 9]),
        ("mqii", [3]),
        ("miiaa", [2]),
    ],
)
def test_the_instruction_is_the_words_behind_the_image_or_the_nearest_to_them(kinds, expected):
    vision = np.array([i for i, kind in enumerate(kinds) if kind == "i"])
    assert instruction_places(rendered(kinds), vision).tolist() == expected


def test_a_row_that_knows_no_questions_takes_all_but_images_and_answers():
    row = RenderedRow(np.arange(6), np.array([-1, -1, -1, -1, 0, -1]))
    assert instruction_places(row, np.array([1, 2])).tolist() == [3, 5]


def test_no_rows_give_no_batches():
    assert list(vision_representations(ADAPTER, [], picture)) == []


def test_the_fingerprint_follows_model_and_threshold():
    base = representations_fingerprint(ADAPTER)
    assert representations_fingerprint(ADAPTER, 0.9) == base
    assert representations_fingerprint(ADAPTER, 0.8) != base
    assert representations_fingerprint(tiny_adapter(template="plain")) != base
