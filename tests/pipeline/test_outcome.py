import re

import pytest

from vsel_platform.pipeline.drive import drive
from vsel_platform.pipeline.outcome import outcome

HEADLINE = {"headline": "accuracy 33.3 % (28.1 to 38.6)", "n_questions": 1_200, "n_not_answered": 0}
FOUND = {"near images compared": True, "own: questions concerned": "3 of 48", "pope: questions concerned": "0 of 6"}


@pytest.mark.parametrize("stage", ["evaluation", "base_evaluation"])
def test_an_evaluation_tells_its_headline_and_what_is_not_scored(stage):
    assert outcome(stage, HEADLINE) == "accuracy 33.3 % (28.1 to 38.6)"
    assert outcome(stage, HEADLINE | {"n_not_answered": 1_100, "n_without_right_answer": 2}) == (
        "accuracy 33.3 % (28.1 to 38.6); 1,100 of 1,200 questions not answered; "
        "2 of 1,200 questions without a right answer, not scored"
    )
    unscored = {"n_questions": 5, "n_not_answered": 0, "n_without_right_answer": 5}
    assert outcome(stage, unscored).startswith("no metric: no question counts in it; 5 of 5 questions without a right")


def test_leakage_tells_the_benchmarks_that_are_concerned():
    assert outcome("leakage", FOUND) == "own: 3 of 48 questions concerned"
    unread = FOUND | {"pope: images not read": "2 of 6", "own: images not read": "0 of 48"}
    assert outcome("leakage", unread) == "own: 3 of 48 questions concerned; pope: 2 of 6 images not read"
    assert outcome("leakage", {"own: questions concerned": "0 of 48"}) == ""


@pytest.mark.parametrize(
    ("ruling", "reason", "text"),
    [
        (
            "promote",
            "Not worse than the champion beyond the interval: candidate - champion is +1.00 percent points, 95 % ...",
            "takes the place of old: not worse than the champion beyond the interval",
        ),
        (
            "keep",
            "Not shown to be worse, but a loss of more than 2.5 percent points is not ruled out: candidate - ...",
            "old stays: not shown to be worse, but a loss of more than 2.5 percent points is not ruled out",
        ),
        (
            "keep",
            "The benchmark has 3 clusters of questions, fewer than 20; the champion stays.",
            "old stays: the benchmark has 3 clusters of questions, fewer than 20",
        ),
    ],
)
def test_a_ruling_is_told_with_its_reason(ruling, reason, text):
    assert outcome("promotion", {"ruling": ruling, "reason": reason, "champion": "old"}) == text


def test_other_stages_have_nothing_to_tell():
    assert outcome("losses", {"headline": "x", "n_questions": 1}) == ""


def test_the_lines_of_a_run_end_with_what_came_out(copied):
    lines = []
    drive(copied.context({"evaluation.resamples": 150}), ["random"], train=True, log=lines.append)
    (line,) = (line for line in lines if line.startswith("evaluation [random:held_out]"))
    assert re.search(r" 6 reused, \d+\.\d s: exact match \d+\.\d % \(\d+\.\d to \d+\.\d\)$", line)
    (line,) = (line for line in lines if line.startswith("leaderboard"))
    assert line.endswith(" s")
