"""PreSel's corrected default: exact budgets, no NaN, no dependence on order, text rows as a stratum."""

import math
from dataclasses import replace

import numpy as np
import pytest

from vsel_platform.errors import SelectionError
from vsel_platform.methods.presel import PreselOptions, PreselRows, presel_select

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


def unscored(rows):
    columns = zip(rows.image_ids, rows.is_reference, rows.typicality, strict=True)
    return sum(image is not None and not drawn and math.isnan(t) for image, drawn, t in columns)


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
    assert len(ids) == len(set(ids)) == min(budget, 400 - unscored(rows))
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


@pytest.mark.parametrize("budget", [150, 400])
def test_a_missing_typicality_never_ranks_and_is_counted(budget):
    rows = rows_of()
    result = presel_select(rows, budget, DIFFICULTY, OPTIONS, seed=1)
    assert any(note.startswith(f"{unscored(rows)} image rows have no typicality") for note in result.notes)
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


def test_every_prefix_is_a_balanced_smaller_selection():
    rows = rows_of()
    result = presel_select(rows, 200, DIFFICULTY, OPTIONS, seed=1)
    reference = sum(row.reason == "reference" for row in result.rows)
    assert [row.reason for row in result.rows[:reference]] == ["reference"] * reference
    for size in (50, 100, 150):
        prefix = result.rows[reference : reference + size]
        share = size / (len(result.rows) - reference)
        for task in result.tasks:
            assert abs(sum(row.task == task.task for row in prefix) - task.selected * share) <= 1.5


def test_a_budget_below_the_reference_keeps_a_stable_draw_of_it():
    rows = rows_of(n_text=0)
    small, large = (presel_select(rows, n, DIFFICULTY, OPTIONS, seed=1) for n in (5, 12))
    assert {row.reason for row in small.rows} == {"reference"}
    assert [r.sample_id for r in small.rows] == [r.sample_id for r in large.rows[:5]]
    assert "smaller than the reference subset" in small.notes[0]


def test_image_unit_keeps_rows_of_an_image_together():
    rows = rows_of(share_images=4)
    images = dict(zip(rows.sample_ids, rows.image_ids, strict=True))
    by_row = presel_select(rows, 100, DIFFICULTY, OPTIONS, seed=1)
    by_image = presel_select(rows, 100, DIFFICULTY, PreselOptions(unit="image"), seed=1)
    distinct = [len({images[r.sample_id] for r in x.rows if r.reason == "typical"}) for x in (by_row, by_image)]
    assert distinct[1] < distinct[0]


@pytest.mark.parametrize(("changes", "message"), [
    ({"tasks": ["t"]}, "lengths"),
    ({"sample_ids": ["x"] * 400}, "more than once"),
    ({}, "at least 1"),
])  # fmt: skip
def test_unusable_columns_and_budgets_are_refused(changes, message):
    with pytest.raises(SelectionError, match=message):
        presel_select(replace(rows_of(), **changes), 0 if not changes else 5, DIFFICULTY, OPTIONS, seed=1)


def test_released_mode_fills_up_at_random_and_repeats():
    rows = rows_of(n_text=10)
    difficulty = DIFFICULTY | {"task-0": 0.1, "task-3": 0.8}
    one, two = (
        presel_select(r, 300, difficulty, OPTIONS, seed=12345, mode="released") for r in (rows, shuffled(rows, 1))
    )
    assert one == two
    assert len(one.rows) == 300
    assert {row.reason for row in one.rows} == {"reference", "typical", "top-up"}
    assert not any(row.stratum == "text" for row in one.rows)
    capped = presel_select(
        rows, 300, difficulty, PreselOptions(released_budgets="vision_flan"), seed=12345, mode="released"
    )
    assert sum(r.reason == "top-up" for r in capped.rows) < sum(r.reason == "top-up" for r in one.rows)


@pytest.mark.parametrize(("options", "budget", "message"), [
    (PreselOptions(unit="image"), 100, "unit must be row"),
    (OPTIONS, 3, "at least the"),
    (OPTIONS, 100, "without a difficulty: task-3"),
])  # fmt: skip
def test_released_mode_refuses_what_the_released_code_cannot_do(options, budget, message):
    with pytest.raises(SelectionError, match=message):
        presel_select(rows_of(), budget, DIFFICULTY, options, seed=1, mode="released")
