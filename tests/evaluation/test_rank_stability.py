import numpy as np
import pytest
from answer_models import Answers
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from vsel_platform.evaluation.rank_stability import agreements, kendall_tau, rank_intervals, ranks
from vsel_platform.evaluation.run_groups import group_runs

columns = st.lists(st.integers(0, 6), min_size=3, max_size=9)


def test_equal_values_share_the_better_rank():
    assert ranks(np.array([3.0, 5.0, 3.0, 1.0])).tolist() == [2, 1, 2, 4]


def test_a_clear_order_has_narrow_rank_intervals_and_a_tie_has_wide_ones():
    rng = np.random.default_rng(0)
    draws = np.array([[10.0], [5.0], [5.0], [0.0]]) + rng.normal(0, 0.5, (4, 2_000))
    assert rank_intervals(draws).tolist() == [[1, 1], [2, 3], [2, 3], [4, 4]]


@given(columns.flatmap(lambda a: st.tuples(st.just(a), st.lists(st.integers(0, 6), min_size=len(a), max_size=len(a)))))
def test_tau_is_that_of_scipy(pair):
    first, second = (np.array(column, dtype=float) for column in pair)
    expected = kendalltau(first, second).statistic
    found = kendall_tau(first, second)
    assert (found is None) == bool(np.isnan(expected))
    if found is not None:
        assert found == pytest.approx(expected)


def test_two_labels_have_no_order_to_agree_on():
    assert kendall_tau(np.array([1.0, 2.0]), np.array([1.0, 2.0])) is None


def test_a_ranking_that_holds_agrees_between_budgets_and_seeds():
    answers = Answers(np.random.default_rng(1), n_clusters=300, seed_sd=0.0, own=0.1)
    runs = answers.runs({"a": 1.0, "b": -1.0, "c": -2.0}, (5.0, 10.0), seeds=3, random=3)
    found = agreements(list(group_runs(runs, answers.clusters, 20, 0)[0].values()))
    assert [(one.kind, one.first, one.second, one.n_labels, one.n_pairs) for one in found] == [
        ("budgets", 5.0, 10.0, 4, 1),
        ("seeds", 5.0, 5.0, 4, 3),
        ("seeds", 10.0, 10.0, 4, 3),
    ]
    assert all(one.tau == 1 for one in found)
