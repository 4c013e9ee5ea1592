"""Facts, overlaps and correlations against sets and scipy."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from vsel_platform.selection.comparison import Pool, facts, jaccard, random_bands, random_order, rank_correlation

SEEDS = (1, 2, 3)


def pool_of(n, seed=0, n_images=0):
    rng = np.random.default_rng(seed)
    # Up to three images in a row, each once.
    shown = [np.unique(rng.integers(0, n_images or n, rng.integers(0, 4))) for _ in range(n)]
    return Pool(
        [f"r{i:03}" for i in range(n)],
        rng.integers(0, 4, n),
        np.concatenate([*shown, np.zeros(0, np.int64)]).astype(np.int64),
        np.repeat(np.arange(n), [len(images) for images in shown]),
        rng.integers(-1, 6, n),
        rng.integers(1, 50, n).astype(float),
    )


def test_facts_by_hand():
    pool = Pool(
        list("abcdef"),
        np.array([0, 0, 1, 2, 2, 2]),
        np.array([0, 0, 0, 1, 2, 0, 2]),
        np.array([0, 1, 2, 3, 3, 4, 4]),
        np.array([3, 3, 3, 5, -1, -1]),
        np.array([1.0, 2, 4, 8, 16, 32]),
    )
    found = facts(pool, np.array([0, 1, 2, 5]))
    assert found.rows == 4
    assert found.task_coverage == 1.0
    assert (found.cluster_coverage, found.image_coverage) == (0.5, 1 / 3)
    assert found.repeated_images == 2
    # Every image of a row counts, and a row that repeats two is one row.
    both = facts(pool, np.array([0, 3, 4]))
    assert (both.image_coverage, both.repeated_images) == (1.0, 1)
    assert found.tokens == 39


def test_rows_without_image_or_cluster_cover_nothing_and_repeat_nothing():
    pool = Pool(list("abc"), np.zeros(3, int), *np.zeros((2, 0), int), np.full(3, -1), np.ones(3))
    found = facts(pool, np.array([0, 1, 2]))
    assert (found.image_coverage, found.cluster_coverage, found.repeated_images) == (0, 0, 0)


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_facts_are_counts_of_sets_in_any_order(data):
    n = data.draw(st.integers(1, 30))
    pool = pool_of(n, data.draw(st.integers(0, 99)), n_images=5)
    rows = data.draw(st.lists(st.integers(0, n - 1), unique=True))
    found = facts(pool, np.array(rows, np.int64))
    for name, labels in (("task", pool.tasks), ("cluster", pool.clusters)):
        everything = set(labels.tolist()) - {-1}
        own = set(labels[rows].tolist()) - {-1} if rows else set()
        assert getattr(found, f"{name}_coverage") == (len(own) / len(everything) if everything else 0)
    shown = [i for i, row in zip(pool.images.tolist(), pool.image_rows.tolist(), strict=True) if row in rows]
    distinct = set(pool.images.tolist())
    assert found.image_coverage == (len(set(shown)) / len(distinct) if distinct else 0)
    before: set[int] = set()
    repeating = 0
    for row in sorted(rows):
        own = set(pool.images[pool.image_rows == row].tolist())
        repeating += bool(own & before)
        before |= own
    assert found.repeated_images == repeating
    assert found == facts(pool, np.array(rows[::-1], np.int64))


@given(st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30)))
def test_jaccard_is_that_of_sets(first, second):
    a, b = (np.array(sorted(rows), np.int64) for rows in (first, second))
    expected = len(first & second) / len(first | second) if first | second else 1.0
    assert jaccard(a, b) == jaccard(b, a[::-1]) == pytest.approx(expected)


VALUES = st.lists(st.sampled_from([np.nan, np.inf, -1.0, 0.0, 0.5, 0.5, 7.0]), min_size=8, max_size=8)


@settings(max_examples=150, deadline=None)
@given(VALUES, VALUES)
def test_rank_correlation_is_spearman_s_over_the_rows_that_have_both(first, second):
    a, b = np.array(first), np.array(second)
    both = np.isfinite(a) & np.isfinite(b)
    found = rank_correlation(a, b)
    if both.sum() < 3 or np.ptp(a[both]) == 0 or np.ptp(b[both]) == 0:
        assert found is None
    else:
        assert found == pytest.approx(float(spearmanr(a[both], b[both]).statistic))
        assert -1 <= found <= 1


def test_a_falling_function_of_a_score_is_its_opposite():
    values = np.random.default_rng(0).random(500)
    assert rank_correlation(values, np.exp(values)) == pytest.approx(1)
    assert rank_correlation(values, -(values**3)) == pytest.approx(-1)


def test_random_orders_belong_to_ids_and_seeds():
    pool = pool_of(200)
    first = random_order(pool, 1)
    assert sorted(first.tolist()) == list(range(200))
    assert first.tolist() == random_order(pool, 1).tolist()
    assert first.tolist() != random_order(pool, 2).tolist()
    shuffled = np.random.default_rng(0).permutation(200)
    other = Pool([pool.sample_ids[i] for i in shuffled], *(pool.tasks,) * 4, pool.tokens)
    ids = [other.sample_ids[i] for i in random_order(other, 1).tolist()]
    assert ids == [pool.sample_ids[i] for i in first.tolist()]


def test_bands_are_those_of_the_random_selections():
    pool = pool_of(120, n_images=40)
    rows = np.arange(30)
    orders = [random_order(pool, seed) for seed in SEEDS]
    bands = random_bands(pool, rows, orders)
    drawn = [order[:30] for order in orders]
    for name in ("task_coverage", "cluster_coverage", "image_coverage", "repeated_images", "tokens"):
        values = [getattr(facts(pool, one), name) for one in drawn]
        assert (bands[name].low, bands[name].high) == (min(values), max(values))
        assert bands[name].mean == pytest.approx(np.mean(values))
    assert bands["overlap"].mean == pytest.approx(np.mean([jaccard(rows, one) for one in drawn]))
    pairs = [jaccard(a, b) for a, b in [*pairwise(drawn), (drawn[0], drawn[2])]]
    assert bands["random_overlap"].high == max(pairs)


def test_a_selection_of_everything_is_like_all_random_ones():
    pool = pool_of(20)
    bands = random_bands(pool, np.arange(20), [random_order(pool, seed) for seed in SEEDS])
    assert bands["overlap"].low == bands["random_overlap"].low == 1.0
    assert bands["tokens"].low == bands["tokens"].high == pool.tokens.sum()


def test_one_random_selection_has_no_other_to_overlap_with():
    pool = pool_of(20)
    assert random_bands(pool, np.arange(5), [random_order(pool, 1)])["random_overlap"].mean == 1.0
