"""PreSel's corrected default: exact budgets, no NaN, no dependence on order, text rows as a stratum."""

import math

import numpy as np
import pytest

from vsel_platform.methods.presel import (
    PreselOptions,
    PreselRows,
    instruction_relevance,
    presel_select,
    score_images,
    task_importance,
)

OPTIONS = PreselOptions()


def rows_of(n=400, n_text=40, seed=0, share_images=1):
    rng = np.random.default_rng(seed)
    images = [None if i < n_text else f"image-{(i - n_text) // share_images:04d}" for i in range(n)]
    by_image = {name: rng.random() for name in images if name}
    typical = np.array([by_image[name] if name else np.nan for name in images])
    typical[rng.random(n) < 0.05] = np.nan
    return PreselRows(
        [f"{seed}-{i:05d}" for i in range(n)],
        ["text" if i < n_text else f"task-{(i - n_text) // share_images % 4}" for i in range(n)],
        images,
        np.array([images[i] is not None and i % 20 == 3 for i in range(n)]),
        np.array([-1 if images[i] is None else (i - n_text) // share_images % 3 for i in range(n)], np.int32),
        typical,
    )


def shuffled(rows, seed):
    order = np.random.default_rng(seed).permutation(len(rows.sample_ids))
    return PreselRows(
        [rows.sample_ids[i] for i in order],
        [rows.tasks[i] for i in order],
        [rows.image_ids[i] for i in order],
        rows.is_reference[order],
        rows.clusters[order],
        rows.typicality[order],
    )


DIFFICULTY = {"task-0": 0.5, "task-1": 0.6, "task-2": 0.9, "task-3": None, "text": None}


@pytest.mark.parametrize("budget", [1, 7, 60, 200, 399, 400, 1000])
def test_budget_is_met_exactly_and_nothing_twice(budget):
    rows = rows_of()
    result = presel_select(rows, budget, DIFFICULTY, OPTIONS, seed=1)
    ids = [row.sample_id for row in result.rows]
    assert len(ids) == len(set(ids)) == min(budget, 400)
    assert result.shortfall == budget - len(ids)
    assert [row.rank for row in result.rows] == list(range(1, len(ids) + 1))
    for task in result.tasks:
        assert task.selected <= task.available
        assert task.budget == task.selected
    assert sum(t.selected + t.reference for t in result.tasks) == len(ids)


def test_order_of_the_rows_does_not_matter():
    rows = rows_of(share_images=3)
    expected = presel_select(rows, 111, DIFFICULTY, OPTIONS, seed=1)
    for seed in range(3):
        assert presel_select(shuffled(rows, seed), 111, DIFFICULTY, OPTIONS, seed=1) == expected


def test_low_difficulty_gets_more():
    result = presel_select(rows_of(), 120, DIFFICULTY, OPTIONS, seed=1)
    selected = {task.task: task.selected for task in result.tasks}
    assert selected["task-0"] > selected["task-1"] > selected["task-2"]


def test_missing_typicality_ranks_last_and_scores_are_never_nan():
    rows = rows_of()
    result = presel_select(rows, 150, DIFFICULTY, OPTIONS, seed=1)
    missing = {i for i, t in zip(rows.sample_ids, rows.typicality, strict=True) if math.isnan(t)}
    typical = [row for row in result.rows if row.reason == "typical"]
    assert typical
    assert not missing & {row.sample_id for row in typical}
    assert all(row.score is None or math.isfinite(row.score) for row in result.rows)


@pytest.mark.parametrize(("policy", "expected"), [("none", 0), ("proportional", 10), ("all", 40)])
def test_text_rows_follow_their_policy(policy, expected):
    result = presel_select(rows_of(), 100, DIFFICULTY, PreselOptions(text_policy=policy), seed=1)
    assert sum(row.stratum == "text" for row in result.rows) == expected
    assert len(result.rows) == 100


def test_image_unit_keeps_rows_of_an_image_together():
    rows = rows_of(share_images=4)
    images = dict(zip(rows.sample_ids, rows.image_ids, strict=True))
    by_row = presel_select(rows, 100, DIFFICULTY, OPTIONS, seed=1)
    by_image = presel_select(rows, 100, DIFFICULTY, PreselOptions(unit="image"), seed=1)
    distinct = [len({images[r.sample_id] for r in x.rows if r.reason == "typical"}) for x in (by_row, by_image)]
    assert distinct[1] < distinct[0]


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
