from dataclasses import replace

import numpy as np
import pytest
from answer_models import Answers

from vsel_platform.errors import DataError
from vsel_platform.evaluation.run_groups import group_runs


@pytest.fixture
def answers() -> Answers:
    return Answers(np.random.default_rng(0))


def test_runs_are_grouped_and_their_order_changes_nothing(answers):
    runs = answers.runs({"b": 0.0, "a": 0.1}, seeds=2)
    groups, noise = group_runs(runs, answers.clusters, 100, 7)
    other, other_noise = group_runs(runs[::-1], answers.clusters, 100, 7)
    assert list(groups) == [("a", 5.0), ("b", 5.0), ("random", 5.0), ("a", 20.0), ("b", 20.0), ("random", 20.0)]
    assert noise == other_noise
    assert all((groups[key].draws == other[key].draws).all() for key in groups)
    assert [run.seed for run in groups["random", 5.0].runs] == [0, 1, 2, 3, 4]


def test_draws_are_wider_than_the_questions_alone(answers):
    answers.seed_sd = 0.5
    groups, noise = group_runs(answers.runs({"a": 0.0}, seeds=2), answers.clusters, 2_000, 0)
    one = groups["a", 5.0]
    added = one.draws - one.questions
    assert added.std() > 0.5 * (noise[5.0].added / 2) ** 0.5 > 0


def test_without_a_second_seed_only_the_questions_are_drawn(answers):
    groups, noise = group_runs(answers.runs({"a": 0.0}, random=1), answers.clusters, 100, 0)
    assert noise == {}
    assert (groups["a", 5.0].draws == groups["a", 5.0].questions).all()
    assert groups["a", 5.0].seed_sd is None


def test_a_budget_that_scatters_more_keeps_its_own_spread(answers):
    wide = Answers(np.random.default_rng(0), seed_sd=0.8)
    runs = [*answers.runs({}, (20.0,), random=8), *wide.runs({}, (5.0,), random=8)]
    _, noise = group_runs(runs, answers.clusters, 200, 0)
    assert noise[5.0].df == 7
    assert noise[20.0].df == 14
    assert noise[5.0].added > noise[20.0].added


def test_what_cannot_be_compared_is_refused(answers):
    runs = answers.runs({"a": 0.0})
    with pytest.raises(DataError, match=r"'a-5-0' and 'again' have the same label 'a', budget 5 and seed 0"):
        group_runs([*runs, replace(runs[5], recipe="again")], answers.clusters, 10, 0)
    loss = replace(runs[0], seed=9, measure=replace(runs[0].measure, name="loss", unit="nat/token"))
    with pytest.raises(DataError, match=r"'loss' \[nat/token\]"):
        group_runs([*runs, loss], answers.clusters, 10, 0)
    with pytest.raises(DataError, match="at least one"):
        group_runs([], answers.clusters, 10, 0)
