"""Free2DS's corrected default."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import ValidationError

from vsel_platform.errors import SelectionError
from vsel_platform.methods.free2ds import (
    Free2dsOptions,
    joint_scores,
    scale_to_unit,
    select_order,
    selection_pressure,
)
from vsel_platform.methods.free2ds_released_data import ONE_WORD_SUFFIX
from vsel_platform.signals.attention_maps import one_word_question

NAN = np.nan
DEFAULT = Free2dsOptions()
MINMAX = Free2dsOptions(scaling="minmax")
ROWS = st.shared(st.integers(1, 60), key="rows")
MAYBE = st.one_of(st.floats(0, 1), st.just(NAN), st.sampled_from([0.0, 0.25, 1.0]))
COLUMNS = hnp.arrays(np.float64, ROWS, elements=MAYBE)
OPTIONS = st.builds(
    Free2dsOptions,
    alpha=st.floats(0, 1),
    scaling=st.sampled_from(["robust", "minmax"]),
    policy=st.sampled_from(["top_k", "gumbel"]),
    temperature=st.sampled_from([0.01, 0.3, 2.0]),
)


def names(n):
    return [f"id{i:03d}" for i in range(n)]


def test_low_iou_and_unusual_text_are_valuable():
    scores = joint_scores(np.array([0.0, 0.5, 1.0]), np.array([0.0, 5.0, 10.0]), MINMAX)
    assert scores.image.tolist() == [1, 0.5, 0]
    assert scores.text.tolist() == [0, 0.5, 1]
    only_image = joint_scores(np.array([0.2, 0.9]), np.array([1.0, 5.0]), Free2dsOptions(alpha=0, scaling="minmax"))
    assert only_image.joint.tolist() == [1, 0]


def test_a_missing_part_stays_missing_and_counts_as_the_median():
    iou, text = np.array([NAN, 0.0, 0.2, 1.0]), np.array([1.0, 0.0, NAN, 1.0])
    scores = joint_scores(iou, text, MINMAX)
    assert np.isnan(scores.image[0])
    assert np.isnan(scores.text[2])
    np.testing.assert_allclose(scores.joint, [0.5 * 0.8 + 0.5, 0.5, 0.5 * 0.8 + 0.5 * 1.0, 0.5])
    assert (scores.missing_image, scores.missing_text, scores.unranked) == (1, 1, 0)


def test_a_row_with_nothing_that_counts_has_no_score():
    iou, text = np.array([NAN, NAN, 0.4]), np.array([NAN, 1.0, 2.0])
    both = joint_scores(iou, text, DEFAULT)
    assert np.isnan(both.joint).tolist() == [True, False, False]
    assert both.unranked == 1
    # Its text has no weight here, and being without IoU is no merit.
    image_only = joint_scores(iou, text, Free2dsOptions(alpha=0))
    assert np.isnan(image_only.joint).tolist() == [True, True, False]
    assert select_order(image_only.joint, names(3), DEFAULT, seed=1).tolist() == [2]


def test_a_column_that_is_missing_everywhere_leaves_the_order_to_the_other():
    text = np.array([3.0, 1.0, 2.0])
    scores = joint_scores(np.full(3, NAN), text, DEFAULT)
    assert select_order(scores.joint, names(3), DEFAULT, seed=1).tolist() == [0, 2, 1]


@given(COLUMNS, COLUMNS, OPTIONS)
def test_losing_a_score_never_makes_a_row_better_than_the_best_of_that_score(iou, text, options):
    scores = joint_scores(iou, text, options)
    complete = np.isfinite(iou) & np.isfinite(text)
    if not complete.any():
        return
    image_best, text_best = np.nanmax(scores.image), np.nanmax(scores.text)
    lacking = np.isfinite(scores.joint) & ~complete
    parts = (1 - options.alpha) * np.where(np.isnan(scores.image), image_best, scores.image)
    parts += options.alpha * np.where(np.isnan(scores.text), text_best, scores.text)
    assert (scores.joint[lacking] <= parts[lacking] + 1e-12).all()
    np.testing.assert_array_equal(np.isnan(scores.image), np.isnan(iou))


def test_values_that_are_not_finite_are_missing():
    scores = joint_scores(np.array([np.inf, 0.1, -np.inf, 0.9]), np.ones(4), DEFAULT)
    assert scores.missing_image == 2
    assert np.isfinite(scores.joint).all()


def test_one_outlier_does_not_set_the_scale():
    values = np.append(np.linspace(0, 1, 500), 1e6)
    robust, minmax = scale_to_unit(values, "robust"), scale_to_unit(values, "minmax")
    assert np.ptp(robust[:500]) > 0.95
    assert np.ptp(minmax[:500]) < 1e-5
    assert robust[-1] == 1


def test_a_constant_column_is_neutral():
    for scaling in ("robust", "minmax"):
        assert scale_to_unit(np.array([3.0, NAN, 3.0]), scaling)[[0, 2]].tolist() == [0.5, 0.5]
    nearly = np.append(np.full(500, 3.0), [2.0, 4.0])
    assert set(scale_to_unit(nearly, "robust").tolist()) == {0.0, 0.5, 1.0}


@given(COLUMNS, st.sampled_from(["robust", "minmax"]))
def test_scaling_keeps_the_order_and_stays_in_the_unit_interval(values, scaling):
    scaled = scale_to_unit(values, scaling)
    present = np.isfinite(values)
    np.testing.assert_array_equal(np.isfinite(scaled), present)
    found = scaled[present][np.argsort(values[present])]
    assert ((found >= 0) & (found <= 1)).all()
    assert (np.diff(found) >= 0).all()


@given(COLUMNS, COLUMNS, OPTIONS, st.randoms(use_true_random=False))
def test_the_order_does_not_depend_on_the_order_of_the_rows(iou, text, options, random):
    n = len(iou)
    moved = list(range(n))
    random.shuffle(moved)
    ids = names(n)
    first = select_order(joint_scores(iou, text, options).joint, ids, options, seed=5)
    again = select_order(joint_scores(iou[moved], text[moved], options).joint, [ids[i] for i in moved], options, seed=5)
    assert [moved[i] for i in again] == first.tolist()


def test_top_k_is_by_score_with_ties_by_id():
    order = select_order(np.array([0.5, 0.9, NAN, 0.5]), ["d", "c", "a", "b"], DEFAULT, seed=1)
    assert order.tolist() == [1, 3, 0]


def gumbel(temperature):
    return Free2dsOptions(policy="gumbel", temperature=temperature)


def test_gumbel_belongs_to_seed_and_id():
    scores = np.linspace(0, 1, 300)
    first = select_order(scores, names(300), gumbel(0.3), seed=1)
    assert not np.array_equal(first, select_order(scores, names(300), gumbel(0.3), seed=2))
    # Other rows do not change the order of those that are there.
    half = select_order(scores[:150], names(150), gumbel(0.3), seed=1)
    assert half.tolist() == [i for i in first if i < 150]


def test_gumbel_draws_by_softmax():
    draws = 4000
    scores, ids = np.tile([0.0, 1.0], draws), [f"{i}" for i in range(2 * draws)]
    place = np.empty(2 * draws, np.int64)
    place[select_order(scores, ids, gumbel(1.0), seed=3)] = np.arange(2 * draws)
    wins = (place[1::2] < place[0::2]).mean()
    assert abs(wins - np.e / (1 + np.e)) < 4 * np.sqrt(0.2 / draws)


def test_a_low_temperature_gives_top_k_and_a_high_one_a_random_draw():
    scores, k = np.random.default_rng(0).random(3000), 600
    overlap = [
        selection_pressure(scores, select_order(scores, names(3000), gumbel(t), seed=1)[:k]).top_overlap
        for t in (1e-6, 0.05, 1.0, 100.0)
    ]
    assert overlap[0] == 1
    assert overlap == sorted(overlap, reverse=True)
    assert abs(overlap[-1] - 0.2) < 0.05


def test_selection_pressure_compares_chosen_pool_and_top():
    scores = np.array([0.1, NAN, 0.9, 0.5, 0.5])
    found = selection_pressure(scores, np.array([3, 0]))
    assert (found.mean_chosen, found.mean_pool, found.mean_top) == pytest.approx((0.3, 0.5, 0.7))
    assert found.top_overlap == 0.5
    assert selection_pressure(scores, np.array([2, 4])).top_overlap == 1
    # Two rows tie for one place of the top 2: taking both is one hit.
    assert selection_pressure(scores, np.array([3, 4])).top_overlap == 0.5


def test_selection_pressure_without_scores():
    found = selection_pressure(np.array([NAN, 0.4]), np.array([0]))
    assert (found.mean_chosen, found.mean_pool, found.mean_top, found.top_overlap) == (None, 0.4, None, None)
    assert selection_pressure(np.array([]), np.array([], np.int64)).mean_pool is None


@settings(max_examples=50)
@given(hnp.arrays(np.float64, st.integers(1, 30), elements=st.sampled_from([0.0, 0.5, 1.0])), st.integers(1, 30))
def test_top_k_has_all_the_pressure_there_is(scores, k):
    chosen = select_order(scores, names(len(scores)), DEFAULT, seed=0)[:k]
    found = selection_pressure(scores, chosen)
    assert found.top_overlap == 1
    assert found.mean_chosen == pytest.approx(found.mean_top)


def test_the_suffix_is_appended_once():
    assert one_word_question("What? ") == "What?" + ONE_WORD_SUFFIX
    short = "<image>\nIs it?\nAnswer the question using a single word or phrase."
    assert one_word_question(short) == short
    assert one_word_question(one_word_question("What?")) == one_word_question("What?")


def test_columns_and_options_are_checked():
    with pytest.raises(SelectionError, match="2 image and 3 text scores"):
        joint_scores(np.zeros(2), np.zeros(3), DEFAULT)
    for ids in (["a"], ["a", "a"]):
        with pytest.raises(SelectionError, match="distinct ids"):
            select_order(np.zeros(2), ids, DEFAULT, seed=0)
    for wrong in ({"alpha": -0.1}, {"temperature": 0}, {"policy": "random"}, {"beta": 1}):
        with pytest.raises(ValidationError):
            Free2dsOptions(**wrong)
