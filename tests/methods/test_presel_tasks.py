"""Selection inside a task: exact, capped, duplicates once, whole images when asked for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsel_platform.methods.presel_tasks import rank_by_typicality, released_quotas, select_task
from vsel_platform.methods.presel_types import PreselOptions, PreselRows

ROW, IMAGE = PreselOptions(), PreselOptions(unit="image")


def rows_of(images, typicality, clusters=None, reference=()):
    n = len(images)
    return PreselRows(
        [f"r{i:03d}" for i in range(n)],
        ["t"] * n,
        images,
        np.isin(np.arange(n), list(reference)),
        np.zeros(n, np.int32) if clusters is None else np.array(clusters, np.int32),
        np.array(typicality, np.float64),
    )


@st.composite
def task(draw):
    n = draw(st.integers(1, 60))
    n_images = draw(st.integers(1, n))
    scores = draw(st.lists(st.sampled_from([0.1, 0.5, 0.9, float("nan")]), min_size=n_images, max_size=n_images))
    of_row = draw(st.lists(st.integers(0, n_images - 1), min_size=n, max_size=n))
    reference = draw(st.sets(st.integers(0, n - 1), max_size=5))
    rows = rows_of([f"i{i:02d}" for i in of_row], [scores[i] for i in of_row], [i % 4 for i in of_row], reference)
    return rows, draw(st.integers(0, 70)), draw(st.permutations(range(n)))


@settings(max_examples=300)
@given(task())
def test_the_budget_is_met_by_available_rows_in_any_order(case):
    rows, budget, order = case
    selected = select_task(rows, order, budget, ROW)
    available = np.flatnonzero(np.isfinite(rows.typicality) & ~rows.is_reference).tolist()
    assert len(selected) == len(set(selected)) == min(budget, len(available))
    assert set(selected) <= set(available)
    assert selected == select_task(rows, sorted(order), budget, ROW)
    shares = [sum(rows.clusters[i] == c for i in available) * len(selected) / max(len(available), 1) for c in range(4)]
    taken = [sum(rows.clusters[i] == c for i in selected) for c in range(4)]
    assert all(abs(a - b) < 1 for a, b in zip(shares, taken, strict=True))


@settings(max_examples=300)
@given(task())
def test_image_unit_takes_whole_images_within_the_budget(case):
    rows, budget, order = case
    selected = select_task(rows, order, budget, IMAGE)
    assert len(selected) == len(set(selected)) <= budget
    assert selected == select_task(rows, sorted(order), budget, IMAGE)
    available = np.flatnonzero(np.isfinite(rows.typicality) & ~rows.is_reference).tolist()
    images = {rows.image_ids[i] for i in selected}
    assert set(selected) == {i for i in available if rows.image_ids[i] in images}
    sizes = [
        sum(rows.image_ids[i] == name for i in available) for name in {rows.image_ids[i] for i in available} - images
    ]
    assert all(size > budget - len(selected) for size in sizes), "an image that fits is not left out"


def test_rows_of_one_image_do_not_crowd_out_others():
    rows = rows_of(["a", "a", "a", "b", "c"], [0.9, 0.9, 0.9, 0.5, 0.1])
    assert select_task(rows, range(5), 3, ROW) == [0, 3, 4]
    assert select_task(rows, range(5), 4, ROW) == [0, 3, 4, 1]
    assert select_task(rows, range(5), 3, IMAGE) == [0, 1, 2]
    assert select_task(rows, range(5), 2, IMAGE) == [3, 4], "the image with three rows does not fit"


def test_clusters_take_turns():
    rows = rows_of([f"i{i}" for i in range(6)], [0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [0, 0, 0, 0, 1, 1])
    assert select_task(rows, range(6), 3, ROW) == [0, 4, 1]


def test_missing_ranks_last_and_ties_go_to_the_smaller_id():
    rows = rows_of(["d", "c", "b", "a"], [float("nan"), 0.5, 0.5, 0.7])
    assert rank_by_typicality(rows, [3, 2, 1, 0], by_image=False) == [3, 1, 2, 0]
    assert rank_by_typicality(rows, [3, 2, 1, 0], by_image=True) == [3, 1, 2, 0]


@pytest.mark.parametrize(("sizes", "available", "budget", "expected"), [
    ([4, 4], [4, 4], 1, [1, 0]),  # 0.5 each rounds to 0, the first of the largest gets one
    ([3, 5], [3, 5], 8, [3, 5]),
    ([3, 3, 3], [3, 3, 0], 5, [3, 2]),
    ([2, 1], [0, 0], 3, [0, 0]),
])  # fmt: skip
def test_released_counts(sizes, available, budget, expected):
    assert released_quotas(sizes, available, budget)[: len(expected)] == expected
