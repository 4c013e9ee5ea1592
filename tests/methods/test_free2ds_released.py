"""Free2DS as released, with its quirks."""

import numpy as np
import pytest
from pydantic import ValidationError

from vsel_platform.errors import SelectionError
from vsel_platform.methods.free2ds_released import (
    ReleasedFilterOptions,
    assign_to_centroids,
    released_centroids,
    released_draw,
    released_filter,
    released_joint_scores,
    released_text_scores,
)

NAN = np.nan


def blobs(n=300, d=6, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, d)) + 8 * rng.integers(0, 3, (n, 1))).astype(np.float32)


def test_centroids_are_those_of_the_seed_and_near_their_rows():
    vectors = blobs()
    first, again, other = (released_centroids(vectors, 3, seed=seed) for seed in (42, 42, 7))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    labels, distances = assign_to_centroids(vectors, first)
    exact = ((vectors[:, None] - first[None]) ** 2).sum(axis=2)
    np.testing.assert_array_equal(labels, exact.argmin(axis=1))
    np.testing.assert_allclose(distances, exact.min(axis=1), rtol=1e-4)
    assert labels.dtype == np.int64


def test_fewer_rows_than_clusters_and_foreign_centroids_are_refused():
    with pytest.raises(SelectionError, match="5 text vectors cannot make 6 clusters"):
        released_centroids(blobs(5), 6)
    with pytest.raises(SelectionError, match="vectors of 6 and centroids of 4 numbers"):
        assign_to_centroids(blobs(5), blobs(2, d=4))


def test_one_outlier_moves_every_score():
    distances = np.array([1, 2, 4, 2], np.float32)
    assert released_text_scores(distances, ["a", "a", "b", "c"]) == {"a": 0.625, "b": 0.0, "c": 0.5}
    stretched = released_text_scores(np.append(distances, np.float32(400)), ["a", "a", "b", "c", "d"])
    assert min(stretched[name] for name in "abc") > 0.98


def test_distances_of_zero_give_nan_and_no_rows_no_scores():
    assert np.isnan(released_text_scores(np.zeros(2, np.float32), [1, 2])[1])
    assert released_text_scores(np.zeros(0, np.float32), []) == {}


def test_a_missing_value_is_the_best_there_is():
    scores = released_joint_scores(np.array([0.4, NAN, 0.8]), np.array([0.5, 0.5, NAN]), 0.25)
    np.testing.assert_allclose(scores.iou, [0.5, 1, 0])
    np.testing.assert_allclose(scores.text, [0, 0, 1])
    np.testing.assert_allclose(scores.combined, [0.375, 0.75, 0.25])


def test_a_constant_column_is_zero_for_all():
    scores = released_joint_scores(np.array([0.4, 0.4]), np.array([NAN, NAN]), 0.5)
    assert scores.combined.tolist() == [0, 0]


def test_a_draw_is_that_of_the_seed_and_leans_to_high_scores_when_cold():
    scores = np.linspace(0, 1, 200)
    warm, cold = (released_draw(scores, 40, temperature=t, seed=3) for t in (1.0, 0.01))
    assert np.array_equal(warm, released_draw(scores, 40, temperature=1.0, seed=3))
    assert len(set(cold.tolist())) == 40
    assert scores[cold].mean() > 0.85
    assert scores[warm].mean() < 0.7


def test_a_temperature_that_leaves_too_few_rows_is_refused():
    with pytest.raises(SelectionError, match="only 1 rows have a weight above 0, and 2 are to be drawn"):
        released_draw(np.array([0.0, 0.5, 1.0]), 2, temperature=1e-4, seed=1)


def data(n=11):
    return [{"unique_id": i} for i in range(1, n + 1)] + [{"id": "none"}]


@pytest.mark.parametrize(
    ("options", "count", "ratio"),
    [({}, 2, 0.2), ({"num_samples": 3}, 3, 3 / 11), ({"num_samples": 0}, 2, 2 / 11), ({"num_samples": 99}, 11, 1.0)],
)
def test_the_number_of_rows(options, count, ratio):
    found = released_filter(data(), {1: 0.5, 2: 0.1}, {"3": 0.7}, ReleasedFilterOptions(**options), input_file="d")
    assert len(found.selected_sample_ids) == len(found.filtered_data) == count
    assert found.filter_stats["filter_ratio"] == ratio
    assert found.filter_stats["selected_with_iou"] == len({1, 2} & set(found.selected_sample_ids))
    assert [e["unique_id"] for e in found.filtered_data] == sorted(found.selected_sample_ids)
    assert found.sample_scores["1"]["has_iou_score"]
    assert found.sample_scores["3"] == {
        "iou": 0.0, "iou_normalized": 1.0, "bert": 0.7, "bert_normalized": 0.0, "combined": 0.5,
        "has_iou_score": False,
    }  # fmt: skip


def test_options_are_checked_and_ids_needed():
    for wrong in ({"alpha": 2}, {"temperature": 0}, {"filter_ratio": -1}, {"gamma": 1}):
        with pytest.raises(ValidationError):
            ReleasedFilterOptions(**wrong)
    with pytest.raises(SelectionError, match="no entry has a unique_id"):
        released_filter([{"id": 1}], {}, {}, ReleasedFilterOptions(), input_file="d.json")
