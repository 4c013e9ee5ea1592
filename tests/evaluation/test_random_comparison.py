import numpy as np
import pytest
from answer_models import Answers

from vsel_platform.evaluation.leaderboard import leaderboard

METHODS = {f"method {number}": 0.0 for number in range(10)}


@pytest.mark.parametrize(
    ("seed_sd", "own", "seeds"), [(0.15, 0.5, 1), (0.0, 0.8, 1), (0.4, 0.0, 3)], ids=["both", "questions", "seeds"]
)
def test_among_ten_methods_like_random_none_looks_better(seed_sd, own, seeds):
    """At most 5 % of leaderboards name any winner, whether chance comes from questions, from seeds or from both."""
    rng = np.random.default_rng(17)
    wrong = lucky = 0
    for number in range(150):
        answers = Answers(rng, 60, 3, seed_sd, own)
        board = leaderboard(answers.runs(METHODS, seeds=seeds), answers.clusters, n_resamples=500, seed=number)
        verdicts = {row.verdict for row in board.rows}
        wrong += "better than random" in verdicts
        compared = [row for row in board.rows if row.difference_low is not None and row.difference_high is not None]
        lucky += any(row.difference_low > 0 for row in compared)
    assert wrong / 150 <= 0.05
    # Without the adjustment there would be winners: the simulation can find them.
    assert lucky / 150 > 0.05


def test_the_interval_of_one_comparison_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(23)
    covered = n = 0
    for number in range(100):
        answers = Answers(rng, 60, 3, 0.3, 0.3)
        runs = answers.runs({"a": 0.0, "b": 0.0}, (5.0,), seeds=3)
        for row in leaderboard(runs, answers.clusters, n_resamples=500, seed=number).rows:
            if row.difference_low is not None and row.difference_high is not None:
                covered += row.difference_low <= 0 <= row.difference_high
                n += 1
    assert n == 200
    assert 0.90 <= covered / n <= 0.99


def test_methods_that_differ_are_found():
    answers = Answers(np.random.default_rng(1), 150, 3, 0.05, 0.4)
    board = leaderboard(answers.runs(METHODS | {"good": 0.6, "bad": -0.6}, seeds=2), answers.clusters)
    found = {(row.label, row.verdict) for row in board.rows}
    assert found == {
        *((name, "not distinguishable from random") for name in METHODS),
        ("good", "better than random"),
        ("bad", "worse than random"),
        ("random", "random"),
    }


def test_verdict_adjusted_interval_and_adjusted_p_agree():
    rng = np.random.default_rng(4)
    answers = Answers(rng, 100)
    qualities = {f"m{i}": float(quality) for i, quality in enumerate(rng.normal(0, 0.4, 12))}
    board = leaderboard(answers.runs(qualities, seeds=2), answers.clusters, n_resamples=2_000)
    judged = [row for row in board.rows if row.difference is not None]
    assert len(judged) == board.n_comparisons == 24
    for row in judged:
        assert row.adjusted_low <= row.difference_low <= row.difference <= row.difference_high <= row.adjusted_high
        outside = row.adjusted_low > 0 or row.adjusted_high < 0
        assert outside == (row.p_adjusted < 0.05) == (row.verdict != "not distinguishable from random")
    assert len({row.verdict for row in judged}) == 3


def test_more_comparisons_ask_for_more():
    answers = Answers(np.random.default_rng(4), 100)
    runs = answers.runs(METHODS, (5.0,))
    few = leaderboard([run for run in runs if run.label in ("random", "method 0")], answers.clusters)
    many = leaderboard(runs, answers.clusters)
    assert (few.n_comparisons, many.n_comparisons) == (1, 10)
    assert many.critical > few.critical > 1.9


def test_equal_answers_are_not_distinguishable():
    answers = Answers(np.random.default_rng(4), 100)
    same = answers.measure()
    runs = [answers.run("random", 5.0, seed) for seed in range(5)] + [answers.run("copy", 5.0, 0)]
    runs = [type(run)(run.recipe, run.label, 5.0, run.seed, same, None, None, 1) for run in runs]
    (copy,) = (row for row in leaderboard(runs, answers.clusters).rows if row.label == "copy")
    assert (copy.difference, copy.adjusted_low, copy.p_adjusted) == (0, 0, 1)
    assert copy.verdict == "not distinguishable from random"
