import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsel_platform.reports.evaluation import TaskComparison, compare, difference_interval, wilson_interval


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_intervals_match_published_values(successes, n, low, high):
    """Newcombe, Stat. Med. 17 (1998) 857, table I, method 3."""
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=6e-5)


@given(st.integers(0, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_share_and_stays_in_bounds(pair):
    successes, n = pair
    low, high = wilson_interval(successes, n)
    assert 0.0 <= low < high <= 1.0
    if n:
        assert low <= successes / n <= high


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [((56, 70, 48, 80), 0.0524, 0.3339), ((9, 10, 3, 10), 0.1705, 0.8090), ((5, 56, 0, 29), -0.0381, 0.1926)],
)
def test_difference_intervals_match_published_values(counts, low, high):
    """Newcombe, Stat. Med. 17 (1998) 873, table II, method 10."""
    assert difference_interval(*counts) == pytest.approx((low, high), abs=6e-5)


@pytest.mark.parametrize(
    ("n", "base", "tuned", "verdict"),
    [
        (150, 0.05, 0.72, "learned"),
        (150, 0.50, 0.53, "not learned"),
        (150, 0.60, 0.35, "worse"),
        (4, 0.0, 0.5, "not learned"),
        (400, 0.0, 0.5, "learned"),
        (0, 0.0, 0.0, "not learned"),
    ],
)
def test_a_task_is_learned_only_beyond_its_interval(n, base, tuned, verdict):
    assert TaskComparison("t", n, base, tuned).verdict == verdict


@given(st.integers(1, 200), st.floats(0, 1), st.floats(0, 1))
def test_verdict_is_symmetric(n, one, other):
    one, other = round(one * n) / n, round(other * n) / n
    swapped = {"learned": "worse", "worse": "learned", "not learned": "not learned"}
    assert TaskComparison("t", n, other, one).verdict == swapped[TaskComparison("t", n, one, other).verdict]


def test_compare_keeps_tasks_of_both_models_best_first():
    rows = [
        {"model": model, "task": task, "n_answers": 10, "exact_match": share}
        for model, task, share in [("base", "a", 0.1), ("tuned", "a", 0.2), ("tuned", "b", 0.9), ("base", "b", 0.0)]
    ]
    rows.append({"model": "tuned", "task": "only tuned", "n_answers": 10, "exact_match": 1.0})
    assert compare(rows) == [TaskComparison("b", 10, 0.0, 0.9), TaskComparison("a", 10, 0.1, 0.2)]
