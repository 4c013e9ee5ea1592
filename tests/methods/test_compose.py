"""Score x quota x diversity x budget: whatever the parts, the sums are exact and nothing without a score is taken."""

import numpy as np
import pytest
from array_signals import signals_of
from hypothesis import given, settings
from hypothesis import strategies as st

from vsel_platform.config import parse_project
from vsel_platform.errors import SelectionError
from vsel_platform.methods.compose import compose
from vsel_platform.methods.registry import composition


def method(name="perplexity", **recipe):
    recipe = {"dataset": "d", "method": name, **recipe}
    project = parse_project(
        str({"name": "p", "datasets": {"d": {"source": "x.json"}}, "recipes": {"r": recipe}}), base_dir="."
    )
    return composition(project, project.recipe("r"))


def taken(result):
    return [row.sample_id for row in result.rows]


def test_the_highest_scores_come_first_and_ties_go_by_id():
    signals = signals_of("aaaaa")
    result = compose(signals, np.array([1.0, 3, 2, 3, 0]), method(), 4, seed=1)
    assert taken(result) == ["r01", "r03", "r02", "r00"]
    assert [row.rank for row in result.rows] == [1, 2, 3, 4]
    assert [row.score for row in result.rows] == [3, 3, 2, 1]
    assert result.shortfall == 0


def test_a_missing_score_never_ranks_and_is_counted():
    signals = signals_of("aaaa")
    result = compose(signals, np.array([np.nan, 1, np.inf, -np.inf]), method(), 3, seed=1)
    assert taken(result) == ["r01"]
    assert result.shortfall == 2
    assert result.notes == ["3 rows have no score and cannot be selected"]


def test_each_task_keeps_its_share():
    signals = signals_of("aaaaaabbb")
    result = compose(signals, np.arange(9.0), method(quota="task"), 3, seed=1)
    assert sorted(row.task for row in result.rows) == ["a", "a", "b"]
    assert {t.task: (t.available, t.selected) for t in result.tasks} == {"a": (6, 2), "b": (3, 1)}
    equal = compose(signals, np.arange(9.0), method(quota="equal_tasks"), 6, seed=1)
    assert sorted(row.task for row in equal.rows) == ["a"] * 3 + ["b"] * 3


def test_what_a_small_group_cannot_take_goes_to_the_others():
    signals = signals_of("aaaaaab")
    result = compose(signals, np.arange(7.0), method(quota="equal_tasks"), 6, seed=1)
    assert sorted(row.task for row in result.rows) == ["a"] * 5 + ["b"]


@pytest.mark.parametrize(("policy", "texts"), [("proportional", 1), ("none", 0), ("all", 2)])
def test_text_rows_are_a_stratum_where_the_score_needs_an_image(policy, texts):
    signals = signals_of("aaaaaaaa", text=(2, 5))
    result = compose(signals, np.arange(8.0), method("visnec"), 4, seed=1, text_policy=policy)
    strata = [row.stratum for row in result.rows]
    assert strata.count("text") == texts
    assert len(result.rows) == 4
    assert {row.reason for row in result.rows if row.stratum == "text"} <= {"text"}
    assert all(row.reason == "visnec" for row in result.rows if row.stratum == "image")


def test_text_rows_are_rows_like_others_where_the_score_applies_to_them():
    signals = signals_of("aaaa", text=(3,))
    assert taken(compose(signals, np.arange(4.0), method(), 2, seed=1)) == ["r03", "r02"]


def test_a_smaller_budget_keeps_nearly_the_same_shares():
    signals = signals_of("a" * 30 + "b" * 10)
    rows = compose(signals, np.arange(40.0), method(quota="task"), 20, seed=1).rows
    assert [row.task for row in rows[:4]].count("b") == 1


@pytest.mark.parametrize(("budget", "length"), [(0, 3), (2, 4)])
def test_a_budget_below_one_and_scores_of_other_rows_are_refused(budget, length):
    with pytest.raises(SelectionError, match="3 rows"):
        compose(signals_of("aaa"), np.zeros(length), method(), budget, seed=1)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_sums_are_exact_whatever_the_parts(data):
    n = data.draw(st.integers(1, 30))
    tasks = data.draw(st.text("abc", min_size=n, max_size=n))
    text = data.draw(st.sets(st.integers(0, n - 1)))
    scores = np.array(data.draw(st.lists(st.sampled_from([np.nan, 0.0, 1.0, 2.5]), min_size=n, max_size=n)))
    name = data.draw(st.sampled_from(["perplexity", "visnec"]))
    quota = data.draw(st.sampled_from(["none", "task", "equal_tasks"]))
    rule = data.draw(st.sampled_from(["top", "gumbel"]))
    policy = data.draw(st.sampled_from(["proportional", "none", "all"]))
    budget = data.draw(st.integers(1, 40))
    signals = signals_of(tasks, text=tuple(text))
    found = compose(signals, scores, method(name, quota=quota, diversity=rule), budget, seed=3, text_policy=policy)
    ids = taken(found)
    assert len(ids) == len(set(ids)) == budget - found.shortfall
    assert [row.rank for row in found.rows] == list(range(1, len(ids) + 1))
    assert sum(task.selected for task in found.tasks) == len(ids)
    can = {i for i in range(n) if np.isfinite(scores[i]) and not (name == "visnec" and i in text)}
    assert all(int(i[1:]) in can or int(i[1:]) in text for i in ids)
    if policy != "none" and name == "perplexity":
        assert found.shortfall == max(0, budget - len(can))


def test_the_draw_belongs_to_ids_and_keeps_a_smaller_budget_s_rows():
    signals = signals_of("a" * 50)
    scores = np.linspace(0, 1, 50)
    rule = method(diversity="gumbel", options={"temperature": 1.0})
    small, large = (taken(compose(signals, scores, rule, n, seed=7)) for n in (10, 20))
    assert large[:10] == small
    assert small != taken(compose(signals, scores, rule, 10, seed=8))
    cold = taken(compose(signals, scores, method(diversity="gumbel", options={"temperature": 1e-6}), 10, seed=7))
    assert cold == taken(compose(signals, scores, method(), 10, seed=7))
