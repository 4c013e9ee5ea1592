"""A row's place, group and what would change its fate, for every reason a row can be in or out."""

import numpy as np
import pytest
from array_signals import ArraySignals, signals_of
from hypothesis import given, settings
from hypothesis import strategies as st

from vsel_platform.config import parse_project
from vsel_platform.errors import SelectionError
from vsel_platform.methods.api import Clusters
from vsel_platform.methods.compose import compose
from vsel_platform.methods.explain import standing
from vsel_platform.methods.registry import composition


def method(name="perplexity", **recipe):
    values = {"name": "p", "datasets": {"d": {"source": "x.json"}}, "recipes": {"r": {"dataset": "d", "method": name}}}
    values["recipes"]["r"] |= recipe
    project = parse_project(str(values), base_dir=".")
    return composition(project, project.recipe("r"))


def explained(signals, scores, how, budget, sample):
    scores = np.array(scores, float)
    selected = [row.sample_id for row in compose(signals, scores, how, budget, seed=1).rows]
    return standing(signals, scores, how, selected, sample)


SCORES = [5, 1, 3, 4, 2]


def test_a_row_that_is_in_has_its_place_and_the_lowest_score_taken():
    found = explained(signals_of("aaaaa"), SCORES, method(), 3, "r03")
    assert (found.is_selected, found.score, found.group) == (True, 4, "all")
    assert (found.place, found.available, found.taken, found.cut) == (2, 5, 3, 3)
    assert found.sentence == (
        "In: place 2 of 5 by score among all rows, of which 3 were taken. "
        "It would be out with a smaller budget or more rows with a higher score."
    )


def test_a_row_that_is_out_is_told_what_it_lacks():
    found = explained(signals_of("aaaaa"), SCORES, method(), 2, "r01")
    assert (found.is_selected, found.place, found.cut) == (False, 5, 4)
    assert "Out: place 5 of 5" in found.sentence
    assert found.sentence.endswith("It would be in with 3 more places, or a score above 4.")


def test_as_many_more_places_as_are_told_are_enough():
    signals = signals_of("aaaaa")
    for sample in signals.sample_ids:
        found = explained(signals, SCORES, method(), 1, sample)
        if not found.is_selected:
            more = int(found.sentence.split(" more places")[0].rsplit(" ", 1)[1])
            assert explained(signals, SCORES, method(), 1 + more, sample).is_selected
            assert not explained(signals, SCORES, method(), more, sample).is_selected


def test_places_are_counted_inside_the_group():
    found = explained(signals_of("abbab"), SCORES, method(quota="task"), 2, "r04")
    assert (found.group, found.place, found.available, found.taken, found.cut) == ("b", 2, 3, 1, 3)
    assert "by score in task b, of which 1 were taken" in found.sentence


def test_a_group_without_a_place_needs_one():
    found = explained(signals_of("aaaab"), SCORES, method(quota="task"), 2, "r04")
    assert (found.taken, found.cut) == (0, None)
    assert found.sentence.endswith("It would be in with a budget that gives the group a place.")


def test_equal_scores_have_places_by_id():
    signals = signals_of("aaa")
    places = [explained(signals, [7, 7, 7], method(), 1, sample).place for sample in signals.sample_ids]
    assert places == [1, 2, 3]
    assert explained(signals, [7, 7, 7], method(), 1, "r00").is_selected


def test_a_tie_at_the_threshold_is_told_on_both_sides_of_it_only():
    signals = signals_of("aaaa")
    tied = "have this same score: among them the id decides."
    sentences = [explained(signals, [7, 7, 7, 9], method(), 3, sample).sentence for sample in signals.sample_ids]
    assert [sentence.endswith(tied) for sentence in sentences] == [True, True, True, False]
    assert tied not in explained(signals, [7, 7, 5, 9], method(), 3, "r01").sentence


def test_a_row_without_a_score_is_no_peer_and_is_told_where_to_look():
    signals = signals_of("aaa")
    found = explained(signals, [1, np.nan, 2], method(), 1, "r01")
    assert (found.score, found.group, found.place) == (None, None, None)
    assert found.sentence == (
        "Out: the row has no perplexity score, so it cannot be ranked (see the table signal_failures)."
    )
    assert explained(signals, [1, np.inf, 2], method(), 1, "r00").available == 2


def test_a_text_row_is_of_its_own_stratum_where_the_score_needs_an_image():
    signals = signals_of("aaaa", text=(1, 3))
    found = explained(signals, [1, 9, 2, np.nan], method("visnec"), 4, "r01")
    assert (found.is_selected, found.score, found.group, found.place) == (True, None, "text", None)
    assert found.sentence.startswith("In: a text-only row; the score needs an image")
    assert explained(signals, [1, 9, 2, np.nan], method("visnec"), 2, "r00").available == 2
    assert explained(signals, [1, 9, 2, 3], method(), 2, "r01").place == 1


def test_other_rules_than_the_highest_scores_are_named():
    signals = signals_of("a" * 9)
    for sample, other in (("r08", "out"), ("r00", "in")):
        found = explained(signals, range(9), method(diversity="gumbel", options={"temperature": 1e-9}), 3, sample)
        expected = f"It would be {other} if the diversity rule gumbel had other rows to choose from."
        assert found.sentence.endswith(expected)


def test_a_row_that_the_quota_leaves_out_competes_in_no_group():
    signals = signals_of("a" * 10)
    how = method(quota="strata", options={"strata": 3, "cut_off": 0.2})
    found = explained(signals, range(10), how, 10, "r09")
    assert (found.is_selected, found.score, found.group, found.place) == (False, 9, None, None)
    assert found.sentence == (
        "Out: the quota strata leaves the row out, whatever the budget. "
        "Other options of the quota, or another score, would change it."
    )
    kept = explained(signals, range(10), how, 4, "r07")
    assert (kept.group, kept.available) == ("stratum 2", 3)


def test_a_row_without_a_vector_competes_with_its_like():
    class Clustered(ArraySignals):
        def clusters(self, clustering):
            return Clusters(np.array([0, 0, 1, 1, -1, -1]), np.zeros(6))

    plain = signals_of("aaaaaa")
    signals = Clustered(plain.sample_ids, plain.tasks, plain.image_ids)
    found = explained(signals, [1, 2, 3, 4, 5, 6], method(quota="cluster"), 3, "r04")
    assert (found.is_selected, found.group, found.place, found.available, found.taken) == (False, "no vector", 2, 2, 1)
    assert "by score among the rows without a vector, of which" in found.sentence
    assert "by score in cluster 1, of" in explained(signals, range(6), method(quota="cluster"), 3, "r03").sentence


@pytest.mark.parametrize("sample", ["r99", ""])
def test_an_unknown_row_is_refused(sample):
    with pytest.raises(SelectionError, match="is not a row of the dataset"):
        standing(signals_of("aa"), np.zeros(2), method(), [], sample)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_places_agree_with_the_selection(data):
    n = data.draw(st.integers(1, 15))
    signals = signals_of(data.draw(st.text("ab", min_size=n, max_size=n)))
    scores = np.array(data.draw(st.lists(st.sampled_from([np.nan, 0.0, 1.0, 2.0]), min_size=n, max_size=n)))
    how, budget = method(quota=data.draw(st.sampled_from(["none", "task"]))), data.draw(st.integers(1, n))
    selected = [row.sample_id for row in compose(signals, scores, how, budget, seed=1).rows]
    for sample in signals.sample_ids:
        found = standing(signals, scores, how, selected, sample)
        assert found.is_selected == (sample in selected)
        if found.place is not None:
            assert found.is_selected == (found.place <= found.taken)
