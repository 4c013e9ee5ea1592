"""Answer losses under two and three conditions."""

import math

import numpy as np
import pytest
import torch
from tiny_llava import conversation, picture, tiny_adapter, tiny_model

from vsel_platform.errors import OutOfMemoryError
from vsel_platform.models import batching
from vsel_platform.models.batching import BatchLimits
from vsel_platform.signals.losses import ALL_CONDITIONS, CONDITIONS, LossRow, answer_losses, losses_fingerprint

ADAPTER = tiny_adapter()
ROWS = [
    LossRow(
        f"row{i}",
        conversation(
            "<image>\nWhat colour is the bus?" + " And the street?" * (i % 4), "It is red.", "How many?", "Two"
        ),
        [f"image{i % 3}"],
    )
    for i in range(10)
] + [
    LossRow("text", conversation("Where is it?", "On the street.")),
    LossRow("double", conversation("<image> and <image>", "A dog and a cat."), ["image0", "image7"]),
]


def values_of(rows, images=picture, model=ADAPTER, **options):
    return [value for batch in answer_losses(model, rows, images, **options) for value in batch.values]


def one_by_one(row, condition):
    """Mean loss by the model's own forward pass with full logits."""
    rendered = ADAPTER.render(row.turns, len(row.images), condition)
    shown = [] if condition == "no_image" else row.images
    pixels = [ADAPTER.preprocess(picture(image)) for image in shown]
    with torch.no_grad():
        output = ADAPTER.model(
            input_ids=torch.from_numpy(rendered.input_ids)[None],
            pixel_values=torch.from_numpy(np.stack(pixels)) if pixels else None,
            labels=torch.from_numpy(rendered.labels)[None],
        )
    return float(output.loss)


def test_batched_losses_equal_those_of_single_rows():
    values = values_of(ROWS)
    assert [(v.sample_id, v.condition) for v in values] == [(r.sample_id, c) for r in ROWS for c in CONDITIONS]
    expected = [one_by_one(row, condition) for row in ROWS for condition in CONDITIONS]
    np.testing.assert_allclose([v.loss_mean for v in values], expected, atol=1e-5)


def test_sum_mean_and_count_agree_and_conditions_share_their_count():
    values = values_of(ROWS)
    for full, bare in zip(values[::2], values[1::2], strict=True):
        assert full.n_tokens == bare.n_tokens > 0
        for value in (full, bare):
            assert value.loss_mean == pytest.approx(value.loss_sum / value.n_tokens)
            assert value.n_cut == 0


@pytest.mark.parametrize(
    "options", [{"batch_tokens": 1}, {"batch_tokens": 150}, {"window_rows": 1}, {"window_rows": 5}]
)
def test_batches_and_windows_do_not_change_the_values(options):
    expected = [v.loss_sum for v in values_of(ROWS)]
    np.testing.assert_allclose([v.loss_sum for v in values_of(ROWS, **options)], expected, atol=1e-4)


def test_going_on_behind_a_finished_window_gives_the_same_bits():
    whole = list(answer_losses(ADAPTER, ROWS, picture, window_rows=4))
    rest = list(answer_losses(ADAPTER, ROWS[4:], picture, window_rows=4))
    assert [batch.values for batch in whole[1:]] == [batch.values for batch in rest]


def test_every_distinct_image_passes_the_tower_once_per_window(monkeypatch):
    seen, opened = [], []
    original = ADAPTER.tower_features
    monkeypatch.setattr(ADAPTER, "tower_features", lambda p: (seen.append(len(p)), original(p))[1])
    values_of(ROWS, lambda i: (opened.append(i), picture(i))[1])
    assert sum(seen) == len(opened) == len({image for row in ROWS for image in row.images})


def test_preprocessed_pixels_give_the_same_losses():
    given = values_of(ROWS, lambda image: ADAPTER.preprocess(picture(image)))
    assert given == values_of(ROWS)


def test_a_broken_image_fails_its_rows_and_no_other():
    def images(image_id):
        if image_id == "image1":
            raise FileNotFoundError(image_id)
        return picture(image_id)

    (batch,) = answer_losses(ADAPTER, ROWS, images)
    broken = [row.sample_id for row in ROWS if "image1" in row.images]
    assert [f.content_id for f in batch.failures] == broken
    assert {f.reason for f in batch.failures} == {"image_missing"}
    assert "image image1" in batch.failures[0].detail
    for value, expected in zip(batch.values, values_of(ROWS), strict=True):
        if value.sample_id in broken:
            assert (value.loss_sum, value.loss_mean, value.n_tokens) == (None, None, 0)
        else:
            assert value.loss_sum == pytest.approx(expected.loss_sum, abs=1e-4)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (LossRow("x", conversation("hi", "")), "no_answer_tokens"),
        (LossRow("x", [("user", "hi")]), "no_answer_tokens"),
        (LossRow("x", []), "no_answer_tokens"),
        (LossRow("x", conversation("hi", "you"), ["image0"]), "row_not_renderable"),
        (LossRow("x", [("human", "hi"), ("gpt", "you")]), "row_not_renderable"),
    ],
)
def test_a_row_that_cannot_be_scored_is_null_with_a_reason(row, reason):
    (batch,) = answer_losses(ADAPTER, [row, ROWS[0]], picture)
    assert [(f.content_id, f.reason) for f in batch.failures] == [("x", reason)]
    assert [v.loss_sum for v in batch.values[:2]] == [None, None]
    assert all(v.loss_sum for v in batch.values[2:])


def test_a_loss_that_is_not_finite_is_null_with_a_reason():
    model = tiny_model()
    with torch.no_grad():
        model.lm_head.weight[:] = float("inf")
    (batch,) = answer_losses(tiny_adapter(model=model), ROWS[:1], picture)
    assert [v.loss_mean for v in batch.values] == [None, None]
    assert batch.failures[0].reason == "non_finite_loss"
    assert "full, no_question" in batch.failures[0].detail


def test_a_cut_row_is_counted_and_keeps_the_same_targets_in_both_conditions():
    limit = len(ADAPTER.render(ROWS[3].turns, 1)) - 3
    (batch,) = answer_losses(tiny_adapter(max_tokens=limit), ROWS[3:4], picture)
    full, bare = batch.values
    assert (full.n_cut, bare.n_cut, batch.n_cut_rows) == (3, 0, 1)
    assert full.n_tokens == bare.n_tokens < values_of(ROWS[3:4])[0].n_tokens
    assert full.loss_sum


def test_a_row_whose_answers_are_all_cut_off_says_so():
    (batch,) = answer_losses(tiny_adapter(max_tokens=20), ROWS[:1], picture)
    assert batch.failures[0].reason == "no_answer_tokens"
    assert "vlm.max_tokens" in batch.failures[0].detail


def test_one_condition_alone_can_be_asked_for():
    values = values_of(ROWS[:2], conditions=("no_question",))
    assert [v.condition for v in values] == ["no_question"] * 2


def test_progress_counts_rows():
    seen = []
    values_of(ROWS, window_rows=5, on_batch=seen.append)
    assert seen == [5, 10, 12]


def limited(monkeypatch, fits):
    """A model in whose memory `fits` tokens have room."""
    monkeypatch.setattr(batching, "free_memory", lambda: None)
    model = tiny_adapter()
    original = model.target_states
    tried = []

    def target_states(groups, images, taps=None):
        size = sum(max(len(row) for row in group) for group in groups)
        tried.append(size)
        if size > fits:
            raise RuntimeError("CUDA out of memory")
        return original(groups, images, taps)

    monkeypatch.setattr(model, "target_states", target_states)
    return model, tried


def test_short_memory_halves_batches_and_is_remembered(monkeypatch):
    model, tried = limited(monkeypatch, fits=300)
    limits = BatchLimits()
    values = values_of(ROWS, model=model, limits=limits)
    np.testing.assert_allclose([v.loss_sum for v in values], [v.loss_sum for v in values_of(ROWS)], atol=1e-4)
    assert max(tried) > 300
    tried.clear()
    values_of(ROWS, model=model, limits=limits)
    assert max(tried) <= 300


def test_a_row_that_does_not_fit_alone_is_named(monkeypatch):
    model, _ = limited(monkeypatch, fits=10)
    with pytest.raises(OutOfMemoryError, match=r"row row\d+ does not fit"):
        values_of(ROWS, model=model)


def test_the_fingerprint_follows_model_and_conditions():
    base = losses_fingerprint(ADAPTER)
    assert losses_fingerprint(ADAPTER, ("no_question", "full")) == base
    assert losses_fingerprint(ADAPTER, ("full",)) != base
    assert losses_fingerprint(tiny_adapter(template="plain")) != base


def test_no_rows_give_no_batches():
    assert list(answer_losses(ADAPTER, [], picture)) == []


def test_the_question_matters_to_the_loss():
    values = {(v.sample_id, v.condition): v.loss_mean for v in values_of(ROWS)}
    assert not math.isclose(values["row0", "full"], values["row0", "no_question"], abs_tol=1e-3)


def three(rows=ROWS, **options):
    """Values under all conditions by (id, condition)."""
    values = values_of(rows, conditions=ALL_CONDITIONS, **options)
    return {(v.sample_id, v.condition): v for v in values}


@pytest.mark.parametrize("options", [{}, {"batch_tokens": 1}, {"batch_tokens": 300}, {"window_rows": 5}])
def test_three_conditions_in_one_pass_equal_separate_passes(options):
    together = three(**options)
    for row in ROWS:
        for condition in ALL_CONDITIONS if row.images else CONDITIONS:
            value = together[row.sample_id, condition]
            assert value.loss_mean == pytest.approx(one_by_one(row, condition), abs=1e-4)
    for condition in ALL_CONDITIONS:
        for apart in values_of(ROWS, conditions=(condition,)):
            value = together[apart.sample_id, condition]
            for name in ("loss_sum", "loss_mean", "entropy_mean", "el2n_mean"):
                assert getattr(value, name) == pytest.approx(getattr(apart, name), abs=1e-4)
            assert value.n_tokens == apart.n_tokens


def test_rows_without_images_have_no_value_without_image():
    values = three()
    assert ("text", "no_image") not in values
    assert {i for i, condition in values if condition == "no_image"} == {row.sample_id for row in ROWS if row.images}
    (batch,) = answer_losses(ADAPTER, [ROWS[10]], picture, conditions=ALL_CONDITIONS)
    assert [v.condition for v in batch.values] == list(CONDITIONS)
    assert batch.failures == []


def test_only_no_image_for_a_row_without_images_is_no_value_and_no_crash():
    values = values_of(ROWS, conditions=("no_image",))
    assert [v.sample_id for v in values] == [row.sample_id for row in ROWS if row.images]


def test_all_conditions_have_the_same_tokens():
    values = three()
    for row in ROWS:
        assert len({v.n_tokens for (i, _), v in values.items() if i == row.sample_id}) == 1


def test_the_image_matters_to_the_loss():
    values = three()
    assert abs(values["row0", "full"].loss_mean - values["row0", "no_image"].loss_mean) > 1e-3


def test_a_broken_image_fails_all_conditions_of_its_rows():
    def images(image_id):
        raise FileNotFoundError(image_id)

    (batch,) = answer_losses(ADAPTER, [ROWS[0], ROWS[10]], images, conditions=ALL_CONDITIONS)
    assert [(v.sample_id, v.loss_sum is None, v.entropy_mean is None) for v in batch.values] == [
        *[("row0", True, True)] * 3,
        *[("text", False, False)] * 2,
    ]
    assert [f.content_id for f in batch.failures] == ["row0"]


def test_entropy_and_el2n_are_within_their_bounds():
    vocabulary = ADAPTER.model.config.text_config.vocab_size
    for value in three().values():
        assert 0 < value.entropy_mean < math.log(vocabulary)
        assert 0 < value.el2n_mean < math.sqrt(2)
