import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsel_platform.evaluation.benchmark import Measure, ratio_measure
from vsel_platform.evaluation.gains import TaskComparison, compare, regressions, unjudged
from vsel_platform.evaluation.metric_rows import LOSS

LOSSES = (2.0, 1.0)


def task(
    base: float,
    tuned: float,
    gain: tuple[float, float],
    losses: tuple[float | None, float | None] = LOSSES,
    name: str = "t",
) -> TaskComparison:
    return TaskComparison(name, 150, base, tuned, (base, base), (tuned, tuned), gain, *losses)


@pytest.mark.parametrize(
    ("base", "tuned", "gain", "verdict"),
    [
        (5, 72, (58, 74), "learned"),
        (50, 53, (-8, 14), "not learned"),
        (60, 35, (-36, -14), "worse"),
        (0, 50, (0, 100), "not learned"),
        (0, 0, (0, 0), "not judged"),
    ],
)
def test_a_task_is_learned_only_beyond_its_interval(base, tuned, gain, verdict):
    assert task(base, tuned, gain).verdict == verdict


@pytest.mark.parametrize(
    ("base", "tuned", "gain", "losses", "verdict"),
    [
        (0, 0, (0, 0), (1.255, 1.475), "worse"),
        (50, 50, (-5, 5), (1.0, 1.1), "worse"),
        (50, 50, (-5, 5), (1.0, 1.01), "not learned"),
        (10, 80, (60, 80), (1.0, 1.1), "mixed"),
        (80, 10, (-80, -60), (1.0, 0.5), "worse"),
        (50, 50, (-5, 5), (None, 1.1), "not learned"),
        (10, 80, (60, 80), (1.0, None), "learned"),
    ],
)
def test_a_loss_that_rises_is_a_regression_and_an_unknown_one_is_none(base, tuned, gain, losses, verdict):
    assert task(base, tuned, gain, losses).verdict == verdict


@given(st.floats(0, 100), st.floats(0, 100), st.floats(0, 50))
def test_the_verdict_on_the_metric_is_symmetric(one, other, width):
    same = (1.0, 1.0)
    swapped = {"learned": "worse", "worse": "learned", "not learned": "not learned", "not judged": "not judged"}
    there = task(one, other, (other - one - width, other - one + width), same)
    back = task(other, one, (one - other - width, one - other + width), same)
    assert back.verdict == swapped[there.verdict]


TASKS = ("a", "b")


def measures(right: dict[str, int], loss: float | None = None) -> list[Measure]:
    """Exact match of 100 answers of every task, the first ones right, and a loss of one token each."""
    groups = np.repeat(TASKS, 100)
    found, losses = [], []
    for name in ("", *right):
        inside = np.ones(200) if not name else (groups == name).astype(float)
        scores = inside * np.concatenate([np.arange(100) < right.get(one, 0) for one in TASKS])
        found.append(ratio_measure("exact_match", scores, inside, group=name))
        if loss is not None:
            losses.append(ratio_measure(LOSS, loss * inside, inside, group=name, unit="nat/token", scale=1.0))
    return [*found, *losses]


CLUSTERS = [f"{number}" for number in range(200)]


def test_compare_keeps_categories_of_both_models_best_first():
    base, tuned = measures({"a": 10, "b": 0}, 4.0), measures({"b": 90, "a": 20, "only tuned": 0}, 0.5)
    found = compare(base, tuned, CLUSTERS, "exact_match", n_resamples=200)
    assert [(row.task, row.n_answers, row.base, row.tuned) for row in found] == [("b", 100, 0, 90), ("a", 100, 10, 20)]
    assert [(row.base_loss, row.tuned_loss, row.unit) for row in found] == [(4.0, 0.5, "percent")] * 2
    low, high = found[1].gain_interval
    assert 0 < low < 10 < high  # 10 answers became right and none wrong: the same questions are compared
    assert found[1].tuned_interval[0] < 20 < found[1].tuned_interval[1]


def test_a_benchmark_without_categories_is_one_task_without_losses():
    base, tuned = ([measures({"a": right, "b": right})[0]] for right in (20, 60))
    (found,) = compare(base, tuned, CLUSTERS, "exact_match", n_resamples=200)
    assert (found.task, found.n_answers, found.base, found.tuned) == ("all", 200, 20, 60)
    assert (found.base_loss, found.tuned_loss, found.verdict) == (None, None, "learned")


def test_a_category_of_which_no_answer_is_known_is_left_out():
    nothing = ratio_measure("exact_match", np.zeros(200), np.zeros(200), group="a")
    assert compare([nothing], [nothing], CLUSTERS, "exact_match", n_resamples=200) == []
    assert compare([nothing], [], CLUSTERS, "exact_match", n_resamples=200) == []


def test_regressions_and_tasks_without_a_right_answer_are_said():
    good = task(10, 80, (60, 80), name="good")
    results = [good, task(0, 0, (0, 0), (1.255, 1.475), "caption"), task(0, 0, (0, 0), name="poem")]
    assert regressions(results) == ["caption: worse, loss 1.255 -> 1.475 nat/token, 0.0 -> 0.0 percent."]
    assert regressions([task(60, 35, (-36, -14), (None, None), "m")]) == ["m: worse, 60.0 -> 35.0 percent."]
    assert [text.split(". ")[0] for text in unjudged(results)] == [
        "No answer is right before or after in: caption, poem"
    ]
    assert unjudged(results[:1]) == regressions(results[:1]) == []
