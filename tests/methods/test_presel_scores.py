"""PreSel's scores: finite losses only, no noise, no order, no reward for duplicates."""

import math

import numpy as np
import pytest

from vsel_platform.errors import SelectionError
from vsel_platform.methods.presel_scores import instruction_relevance, score_images, task_importance
from vsel_platform.methods.presel_types import PreselOptions

OPTIONS = PreselOptions()


def test_relevance_needs_two_finite_positive_losses():
    assert instruction_relevance(1.0, 2.0) == 0.5
    for pair in ((None, 1.0), (1.0, None), (math.nan, 1.0), (1.0, math.inf), (1.0, 0.0), (1.0, -1.0)):
        assert instruction_relevance(*pair) is None


def test_importance_is_the_mean_of_finite_relevances_with_a_minimum():
    tasks = {f"a{i}": "a" for i in range(5)} | {f"b{i}": "b" for i in range(2)}
    relevance = {f"a{i}": 0.5 + i / 10 for i in range(4)} | {"a4": None, "b0": 9.0, "b1": 9.0}
    found = task_importance(relevance, tasks, OPTIONS)
    assert found["a"].difficulty == pytest.approx(0.65)
    assert found["a"].n_relevance == 4
    assert found["b"].difficulty == found["a"].difficulty, "too few rows: the mean of the other tasks"
    assert task_importance({}, {"x": "t"}, OPTIONS)["t"].difficulty is None


def test_importance_ignores_float_noise():
    tasks = {f"a{i}": "a" for i in range(9)}
    noisy = [task_importance({f"a{i}": 0.7 + e for i in range(9)}, tasks, OPTIONS) for e in (0.0, 3e-8)]
    assert noisy[0] == noisy[1]


def test_images_are_scored_the_same_in_any_order_and_without_the_reference():
    rng = np.random.default_rng(0)
    ids = [f"i{i:03d}" for i in range(150)]
    vectors = rng.normal(size=(150, 12)).astype(np.float32)
    reference = set(ids[::10])
    options = PreselOptions(cluster_fraction=0.03)
    first = score_images(ids, vectors, reference, options, seed=5)
    order = rng.permutation(150)
    second = score_images([ids[i] for i in order], vectors[order], reference, options, seed=5)
    assert first == second
    assert set(first.clusters) == set(ids)
    assert not reference & set(first.typicality)
    assert set(first.clusters.values()) == set(range(4))


def test_an_image_alone_in_its_cluster_resembles_none():
    vectors = np.eye(4, dtype=np.float32)
    found = score_images(["a", "b", "c", "d"], vectors, set(), PreselOptions(cluster_fraction=1.0), seed=0)
    assert sorted(found.clusters.values()) == [0, 1, 2, 3]
    assert set(found.typicality.values()) == {0.0}


def test_vectors_that_are_not_finite_get_no_score():
    vectors = np.ones((3, 2), np.float32)
    vectors[1, 0] = np.nan
    found = score_images(["a", "b", "c"], vectors, set(), OPTIONS, seed=0)
    assert set(found.clusters) == set(found.typicality) == {"a", "c"}
    with pytest.raises(SelectionError, match="no image of the task"):
        score_images(["b"], vectors[1:2], set(), OPTIONS, seed=0)


def test_typicality_ignores_float_noise():
    vectors = np.random.default_rng(1).normal(size=(40, 6)).astype(np.float32)
    ids = [f"i{i}" for i in range(40)]
    one, two = (score_images(ids, vectors * scale, set(), OPTIONS, seed=0) for scale in (1.0, 3.0))
    assert one == two


def test_released_scores_cluster_with_scikit_learn_and_leave_a_lone_row_missing():
    vectors = np.concatenate([np.tile([1.0, 0.0], (5, 1)), [[-1.0, 0.2]]]).astype(np.float32)
    vectors[:5] += 0.01 * np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    ids = [f"i{i}" for i in range(6)]
    found = score_images(ids, vectors, set(), PreselOptions(cluster_fraction=0.34), seed=0, mode="released")
    assert len({found.clusters[i] for i in ids[:5]}) == 1
    assert found.clusters["i5"] != found.clusters["i0"]
    assert math.isnan(found.typicality["i5"])
