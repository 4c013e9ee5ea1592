"""Rules pick exactly the places of a group, whatever has no vector; small cases by hand."""

import numpy as np
import pytest
from array_signals import signals_of
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from vsel_platform.methods import diversity_rules as rules
from vsel_platform.methods.api import Options, Picking
from vsel_platform.selection.diversity import normalise_rows
from vsel_platform.selection.graph import knn_graph
from vsel_platform.selection.greedy import d2_pruning, kernel_herding

BY_NAME = {rule.name: rule for rule in rules.RULES}
ON_VECTORS = ["k_center", "facility_location", "d2", "mmd"]


def signals_with(index, matrix):
    return signals_of("a" * len(index), matrices={"image_embeddings": (index, matrix)})


def random_signals(n, without=(), seed=0):
    """Rows with a vector of their own, but for those in `without`."""
    matrix = np.random.default_rng(seed).normal(size=(n, 5)).astype(np.float32)
    return signals_with([-1 if i in without else i for i in range(n)], matrix)


def group(scores, count, members=None, seed=1):
    scores = np.array(scores, float)
    return Picking(np.arange(len(scores)) if members is None else np.array(members), scores, count, seed)


def pick(name, signals, picking, **options):
    rule = BY_NAME[name]
    return rule.pick(signals, picking, rule.options(**options)).tolist()


def test_top_takes_the_highest_scores_and_ties_go_by_id():
    picking = group([1, 5, 5, 0], 3, members=[2, 4, 7, 9])
    assert pick("top", signals_of("a" * 10), picking) == [4, 7, 2]


def test_a_random_draw_belongs_to_ids_and_seed_and_not_to_scores_or_the_group():
    signals = signals_of("a" * 40)
    first = pick("random", signals, group(np.arange(40), 40))
    assert first == pick("random", signals, group(np.zeros(40), 40))
    assert first != pick("random", signals, group(np.zeros(40), 40, seed=2))
    even = list(range(0, 40, 2))
    assert pick("random", signals, group(np.zeros(20), 5, members=even)) == [i for i in first if i % 2 == 0][:5]


def test_gumbel_prefers_high_scores_by_its_temperature():
    signals = signals_of("a" * 300)
    scores = np.linspace(0, 1, 300)
    means = [scores[pick("gumbel", signals, group(scores, 30), temperature=t)].mean() for t in (1e-9, 0.2, 1e9)]
    assert means[0] == pytest.approx(scores[-30:].mean())
    assert means[0] > means[1] > means[2]
    assert means[2] == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e9])
def test_gumbel_draws_at_random_from_equal_scores(value):
    # The spread of equal scores is a rounding error for 0.1: it must not drown the draw.
    signals = signals_of("a" * 50)
    found = pick("gumbel", signals, group(np.full(50, value), 20))
    assert found == pick("gumbel", signals, group(np.zeros(50), 20))
    assert found != sorted(found)


def test_gumbel_of_a_shifted_and_scaled_score_is_the_same():
    signals, scores = signals_of("a" * 50), np.random.default_rng(0).integers(0, 9, 50)
    assert pick("gumbel", signals, group(scores, 20)) == pick("gumbel", signals, group(4 * scores - 16, 20))


def circle(*degrees):
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


def test_k_center_goes_far_from_the_best_score():
    signals = signals_with(range(5), circle(0, 2, 4, 90, 180))
    assert pick("k_center", signals, group([0, 9, 0, 0, 0], 3)) == [1, 4, 3]


def test_facility_location_takes_the_middle_of_groups():
    signals = signals_with(range(6), circle(0, 10, 20, 180, 190, 200))
    assert sorted(pick("facility_location", signals, group(np.zeros(6), 2))) == [1, 4]


def test_vectors_of_any_length_count_by_their_direction():
    signals = signals_with(range(5), circle(0, 2, 4, 90, 180) * np.array([[1], [50], [0.1], [3], [7]]))
    assert pick("k_center", signals, group([0, 9, 0, 0, 0], 3)) == [1, 4, 3]


def test_d2_takes_scores_as_they_are_and_shifts_those_below_0():
    signals, scores = random_signals(30), np.random.default_rng(1).random(30) + 2
    graph = knn_graph(normalise_rows(signals.vectors("image_embeddings")[1]), 4)
    options = {"n_neighbours": 4, "forward": 0.5, "reverse": 2.0}
    expected = d2_pruning(graph, scores, 12, forward=0.5, reverse=2.0).tolist()
    assert pick("d2", signals, group(scores, 12), **options) == expected
    expected = d2_pruning(graph, (scores - 9) - (scores - 9).min(), 12, forward=0.5, reverse=2.0).tolist()
    assert pick("d2", signals, group(scores - 9, 12), **options) == expected


def test_d2_of_equal_scores_is_decided_by_the_neighbourhoods():
    signals = signals_with(range(6), circle(0, 1, 2, 3, 90, 200))
    for value in (0.0, 3.0):
        found = pick("d2", signals, group(np.full(6, value), 6), n_neighbours=3)
        assert found[0] in (1, 2)
        assert set(found[:3]) >= {4, 5}  # before the other copies of the crowd


def test_dedup_keeps_the_best_of_near_duplicates_and_is_short_then():
    signals = signals_with(range(5), circle(0, 1, 2, 90, 91))
    picking = group([1, 3, 2, 0, 5], 4)
    assert pick("dedup", signals, picking, max_cosine=0.99) == [4, 1]
    assert pick("dedup", signals, picking, max_cosine=1.0) == [4, 1, 2, 0]


def test_rows_of_one_image_are_duplicates_however_many():
    signals = signals_with([0] * 30 + [1], circle(0, 90))
    found = pick("dedup", signals, group(np.arange(31)[::-1], 31), n_neighbours=3)
    assert found == [0, 30]


def test_rows_without_a_vector_are_nobody_s_duplicates():
    signals = signals_with([0, 1, -1, -1, 2], circle(0, 1, 90))
    assert pick("dedup", signals, group([5, 4, 3, 1, 2], 5), max_cosine=0.99) == [0, 2, 4, 3]
    assert pick("dedup", signals_with([-1, -1], circle(0)), group([1, 2], 2)) == [1, 0]


@pytest.mark.parametrize("name", ON_VECTORS)
def test_rows_without_a_vector_get_their_share_by_score(name):
    without = (3, 4, 5, 6)
    signals = random_signals(20, without)
    scores = np.arange(20.0)
    found = pick(name, signals, group(scores, 10))
    assert [i for i in found if i in without] == [6, 5]
    rest = [i for i in range(20) if i not in without]
    alone = pick(name, signals, group(scores[rest], 8, members=rest))
    assert [i for i in found if i not in without] == alone
    assert any(i in without for i in found[:5])


@pytest.mark.parametrize("name", ON_VECTORS)
def test_where_no_row_has_a_vector_scores_decide(name):
    signals = signals_with([-1, -1, -1], np.empty((0, 4)))
    assert pick(name, signals, group([1, 3, 2], 2)) == [1, 2]


def test_mmd_is_kernel_herding_of_a_group_that_fits():
    signals = random_signals(60)
    unit = normalise_rows(signals.vectors("image_embeddings")[1])
    expected = kernel_herding(unit, 15, bandwidth=0.7).tolist()
    assert pick("mmd", signals, group(np.zeros(60), 15), bandwidth=0.7) == expected


def test_mmd_thins_a_larger_group_by_id():
    signals = random_signals(60)
    unit = normalise_rows(signals.vectors("image_embeddings")[1])
    expected = kernel_herding(unit[:20], 5, bandwidth=0.5).tolist()
    assert pick("mmd", signals, group(np.zeros(60), 5), max_rows=20) == expected


def test_mmd_of_many_places_compares_no_more_than_its_rows_at_once(monkeypatch):
    sizes = []

    def watched(unit, count, *, bandwidth):
        sizes.append((len(unit), count))
        return kernel_herding(unit, count, bandwidth=bandwidth)

    monkeypatch.setattr(rules, "kernel_herding", watched)
    signals = random_signals(200)
    found = pick("mmd", signals, group(np.zeros(200), 45), max_rows=50)
    assert len(set(found)) == 45
    assert sizes == [(45, 12), (45, 11), (45, 11), (45, 11)]
    assert max(found) >= 150  # chosen among all rows, not the first ones


def test_mmd_in_parts_still_looks_like_the_group():
    signals = random_signals(300, seed=3)
    unit = normalise_rows(signals.vectors("image_embeddings")[1])

    def distance(rows):
        return np.linalg.norm(unit[rows].mean(axis=0) - unit.mean(axis=0))

    found = pick("mmd", signals, group(np.zeros(300), 60), max_rows=80)
    drawn = [distance(np.random.default_rng(seed).permutation(300)[:60]) for seed in range(20)]
    assert distance(found) < min(drawn)


@pytest.mark.parametrize("name", BY_NAME)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_places_are_exact_and_no_row_comes_twice(name, data):
    n = data.draw(st.integers(1, 25))
    without = data.draw(st.sets(st.integers(0, n - 1)))
    signals = random_signals(n, without)
    members = sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1)))
    scores = data.draw(st.lists(st.sampled_from([-1.0, 0.0, 0.1, 2.0]), min_size=len(members), max_size=len(members)))
    picking = group(scores, data.draw(st.integers(1, len(members))), members=members)
    options = {"max_rows": 4} if name == "mmd" else {}
    found = pick(name, signals, picking, **options)
    assert len(found) == len(set(found)) <= picking.count
    assert set(found) <= set(members)
    assert len(found) == picking.count or name == "dedup"
    assert pick(name, signals, picking, **options) == found


@pytest.mark.parametrize("name", [name for name in BY_NAME if name != "mmd"])
def test_the_order_of_the_rows_does_not_matter_where_none_are_equal(name):
    # The same rows under ids in another order; mmd thins by id, and draws belong to ids.
    matrix = np.random.default_rng(5).normal(size=(40, 6)).astype(np.float32)
    scores, order = np.random.default_rng(6).random(40), np.random.default_rng(7).permutation(40)
    straight = pick(name, signals_with(range(40), matrix), group(scores, 15))
    shuffled = signals_with(range(40), matrix[order])
    shuffled.sample_ids = [f"r{i:02}" for i in order]
    assert order[pick(name, shuffled, group(scores[order], 15))].tolist() == straight


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("gumbel", {"temperature": 0}),
        ("k_center", {"n_neighbours": 0}),
        ("d2", {"forward": -1}),
        ("d2", {"reverse": -0.1}),
        ("dedup", {"max_cosine": 1.1}),
        ("dedup", {"max_cosine": 0}),
        ("mmd", {"bandwidth": 0}),
        ("mmd", {"max_rows": 1}),
        ("top", {"temperature": 1}),
    ],
)
def test_options_that_make_no_sense_are_refused_by_name(name, values):
    with pytest.raises(ValidationError, match=next(iter(values))):
        BY_NAME[name].options(**values)


def test_rules_without_vectors_need_none():
    signals = signals_of("aaa")
    for name in ("top", "random", "gumbel"):
        assert BY_NAME[name].options is Options or "space" not in BY_NAME[name].options.model_fields
        assert len(pick(name, signals, group([1, 2, 3], 2))) == 2
