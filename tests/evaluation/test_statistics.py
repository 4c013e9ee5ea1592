import math
import time
import tracemalloc

import numpy as np
import pytest
from answer_models import Answers
from hypothesis import given, settings
from hypothesis import strategies as st

from vsel_platform.errors import DataError
from vsel_platform.evaluation import statistics
from vsel_platform.evaluation.benchmark import Measure, ratio_measure
from vsel_platform.evaluation.statistics import (
    cluster_counts,
    cluster_numbers,
    difference_of,
    interval,
    paired_difference,
    percentiles,
    resampled,
)

names = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=40)


def accuracy(right) -> Measure:
    values = np.asarray(right, dtype=float)
    return ratio_measure("accuracy", values, np.ones(len(values)))


@given(names, st.integers(1, 30), st.integers(0, 5))
def test_every_resample_draws_as_many_clusters_as_there_are(clusters, n, seed):
    counts = cluster_counts(clusters, n, seed)
    assert counts.dtype == np.int32
    assert counts.shape == (n, len(set(clusters)))
    assert (counts.sum(axis=1) == len(set(clusters))).all()
    assert (counts == cluster_counts(clusters, n, seed)).all()


@given(st.lists(st.text(max_size=3), min_size=1, max_size=20))
def test_clusters_are_numbered_by_sorted_name(clusters):
    numbers, n_clusters = cluster_numbers(clusters)
    assert numbers.dtype == np.int64 and n_clusters == len(set(clusters))
    assert [sorted(set(clusters))[number] for number in numbers] == clusters


def test_a_long_name_of_a_cluster_is_not_copied_for_every_question():
    tracemalloc.start()
    numbers, _ = cluster_numbers(["x" * 1_000_000, *map(str, range(20))])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert numbers[0] == 20 and peak < 10_000_000


def test_clusters_are_drawn_with_equal_chance():
    counts = cluster_counts([str(i) for i in range(20)], 4_000, 3)
    assert counts.mean(axis=0) == pytest.approx(np.ones(20), abs=0.08)
    assert counts.var() == pytest.approx(19 / 20, rel=0.03)


@given(st.data())
@settings(max_examples=25)
def test_values_are_those_of_questions_repeated_as_often_as_their_cluster(data):
    clusters = data.draw(names)
    right = np.array(data.draw(st.lists(st.booleans(), min_size=len(clusters), max_size=len(clusters))), dtype=float)
    counts = cluster_counts(clusters, 20, 1)
    times = counts[:, np.unique(clusters, return_inverse=True)[1]]
    expected = 100 * (times * right).sum(axis=1) / times.sum(axis=1)
    assert resampled([accuracy(right)], clusters, n_resamples=20, seed=1)[0] == pytest.approx(expected)


def test_blocks_and_the_order_of_questions_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    clusters = [f"c{i // 3}" for i in range(90)]
    right = rng.random(90).round()
    order = rng.permutation(90)
    whole = resampled([accuracy(right)], clusters, n_resamples=50, seed=4)
    shuffled = resampled([accuracy(right[order])], [clusters[i] for i in order], n_resamples=50, seed=4)
    assert shuffled == pytest.approx(whole)
    monkeypatch.setattr(statistics, "_BLOCK_DRAWS", 7 * 30)
    assert resampled([accuracy(right)], clusters, n_resamples=50, seed=4) == pytest.approx(whole)


def test_measures_with_different_sums_are_resampled_together():
    values = np.arange(6.0)
    squares = Measure("rms", "", "points", np.stack([values**2, np.ones(6), values], 1), lambda s: np.sqrt(s[..., 0]))
    clusters = list("aabbcc")
    both = resampled([squares, accuracy(values > 2)], clusters, n_resamples=30)
    assert (both[0] == resampled([squares], clusters, n_resamples=30)[0]).all()
    assert (both[1] == resampled([accuracy(values > 2)], clusters, n_resamples=30)[0]).all()


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    """Questions of an image are alike: an interval that resampled single questions would miss the truth."""
    rng = np.random.default_rng(11)
    covered = naive = 0
    for number in range(200):
        ease = np.repeat(rng.beta(1, 1, 60), 5)
        measure = accuracy(rng.random(300) < ease)
        found = interval(measure, [str(i // 5) for i in range(300)], n_resamples=400, seed=number)
        alone = interval(measure, [str(i) for i in range(300)], n_resamples=400, seed=number)
        covered += found.low <= 50 <= found.high
        naive += alone.low <= 50 <= alone.high
    assert 0.90 <= covered / 200 <= 0.99
    assert naive / 200 < 0.90


def test_pairing_takes_out_what_makes_a_question_hard_for_both():
    answers = Answers(np.random.default_rng(2), n_clusters=200, seed_sd=0.0, own=0.3)
    a, b = answers.measure(0.1), answers.measure(0.0)
    found = paired_difference(a, b, answers.clusters)
    single = interval(a, answers.clusters)
    assert found.estimate == pytest.approx(a.estimate - b.estimate)
    assert found.low < found.estimate < found.high
    assert found.high - found.low < 0.7 * (single.high - single.low)


def test_a_paired_difference_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(5)
    covered = 0
    for number in range(200):
        answers = Answers(rng, n_clusters=60, seed_sd=0.0)
        found = paired_difference(answers.measure(), answers.measure(), answers.clusters, n_resamples=400, seed=number)
        covered += found.low <= 0 <= found.high
    assert 0.90 <= covered / 200 <= 0.99


def test_a_measure_with_itself_differs_by_nothing():
    answers = Answers(np.random.default_rng(2))
    one = answers.measure()
    found = paired_difference(one, one, answers.clusters)
    reach = 100 * (1 - 0.025 ** (1 / len(set(answers.clusters))))
    assert (found.estimate, found.share_not_above) == (0, 1)
    assert (-found.low, found.high) == (pytest.approx(reach), pytest.approx(reach))


def test_one_cluster_shows_no_difference():
    found = paired_difference(accuracy([1] * 3), accuracy([0] * 3), ["a"] * 3)
    assert (found.estimate, found.low, found.high) == (100, pytest.approx(-95), 100)
    many = paired_difference(accuracy([1] * 40), accuracy([0] * 40), [str(i) for i in range(40)])
    assert 80 < many.low < 90


def test_what_is_not_defined_is_nan_and_counts_nowhere():
    empty = ratio_measure("a", np.zeros(4), np.zeros(4))
    assert math.isnan(interval(empty, list("abcd")).low)
    assert math.isnan(paired_difference(empty, empty, list("abcd")).share_not_above)
    rare = ratio_measure("a", np.array([1.0, 0, 0]), np.array([1.0, 0, 0]))
    assert np.isnan(resampled([rare], list("abc"), n_resamples=50)).any()
    found = interval(rare, list("abc"), n_resamples=50)
    assert (found.estimate, found.low, found.high) == pytest.approx((100, 2.5, 100))  # one cluster tells little
    assert percentiles(np.array([np.nan, 1.0, 3.0]), 1.0) == (1.0, 3.0)
    assert difference_of(1.0, np.array([np.nan, -1.0, 0.0, 2.0, 3.0])).share_not_above == 0.5


def test_other_questions_and_no_questions_are_refused():
    with pytest.raises(DataError, match=r"'accuracy' has 3 questions, the clusters are of 2"):
        interval(accuracy([1, 0, 1]), ["a", "b"])
    with pytest.raises(DataError, match="no question"):
        cluster_counts([])


def test_ten_thousand_questions_take_well_under_a_second():
    right = np.random.default_rng(0).random(10_000).round()
    clusters = [str(i) for i in range(10_000)]
    start = time.perf_counter()
    interval(accuracy(right), clusters, n_resamples=1_000)
    assert time.perf_counter() - start < 1.0


@pytest.mark.parametrize(("score", "low", "high"), [(0.0, 0.0, 30.850), (1.0, 69.150, 100.0)])
def test_a_share_of_nothing_or_all_has_the_exact_binomial_interval_of_its_clusters(score, low, high):
    """Ten clusters: 1 - 0.025 ** (1 / 10) = 0.3085; questions of one cluster are not ten."""
    scores = np.full(30, score)
    found = interval(ratio_measure("m", scores, np.ones(30)), [str(i // 3) for i in range(30)])
    assert (found.low, found.high) == pytest.approx((low, high), abs=2e-3)
