import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsel_platform.reports.evaluation import (
    TaskComparison,
    compare,
    difference_interval,
    regressions,
    unjudged,
    wilson_interval,
)


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


def task(
    n: int, base: float, tuned: float, losses: tuple[float, float] = (2.0, 1.0), name: str = "t"
) -> TaskComparison:
    return TaskComparison(name, n, base, tuned, *losses)


@pytest.mark.parametrize(
    ("n", "base", "tuned", "verdict"),
    [
        (150, 0.05, 0.72, "learned"),
        (150, 0.50, 0.53, "not learned"),
        (150, 0.60, 0.35, "worse"),
        (4, 0.0, 0.5, "not learned"),
        (400, 0.0, 0.5, "learned"),
        (150, 0.0, 0.0, "not judged"),
        (0, 0.0, 0.0, "not judged"),
    ],
)
def test_a_task_is_learned_only_beyond_its_interval(n, base, tuned, verdict):
    assert task(n, base, tuned).verdict == verdict


@pytest.mark.parametrize(
    ("base", "tuned", "losses", "verdict"),
    [
        (0.0, 0.0, (1.255, 1.475), "worse"),
        (0.5, 0.5, (1.0, 1.1), "worse"),
        (0.5, 0.5, (1.0, 1.01), "not learned"),
        (0.1, 0.8, (1.0, 1.1), "mixed"),
        (0.8, 0.1, (1.0, 0.5), "worse"),
    ],
)
def test_a_loss_that_rises_is_a_regression(base, tuned, losses, verdict):
    assert task(150, base, tuned, losses).verdict == verdict


@given(st.integers(1, 200), st.floats(0, 1), st.floats(0, 1))
def test_the_verdict_on_exact_match_is_symmetric(n, one, other):
    one, other = round(one * n) / n, round(other * n) / n
    same = (1.0, 1.0)
    swapped = {"learned": "worse", "worse": "learned", "not learned": "not learned", "not judged": "not judged"}
    assert task(n, other, one, same).verdict == swapped[task(n, one, other, same).verdict]


def test_compare_keeps_tasks_of_both_models_best_first():
    rows = [
        {"model": model, "task": name, "n_answers": 10, "exact_match": share, "loss_mean": loss}
        for model, name, share, loss in [
            ("base", "a", 0.1, 3.0),
            ("tuned", "a", 0.2, 1.0),
            ("tuned", "b", 0.9, 0.5),
            ("base", "b", 0.0, 4.0),
        ]
    ]
    rows.append({"model": "tuned", "task": "only tuned", "n_answers": 10, "exact_match": 1.0, "loss_mean": 0.1})
    assert compare(rows) == [task(10, 0.0, 0.9, (4.0, 0.5), "b"), task(10, 0.1, 0.2, (3.0, 1.0), "a")]


def test_regressions_and_tasks_without_an_exact_answer_are_said():
    results = [task(150, 0.1, 0.8, name="good"), task(60, 0, 0, (1.255, 1.475), "caption"), task(60, 0, 0, name="poem")]
    assert regressions(results) == ["caption: worse, loss 1.255 -> 1.475 nat/token, exact match 0.0% -> 0.0%."]
    assert [text.split(". ")[0] for text in unjudged(results)] == [
        "No answer is exact before or after in: caption, poem"
    ]
    assert unjudged(results[:1]) == regressions(results[:1]) == []
