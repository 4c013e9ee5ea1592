"""Greedy choices against textbook loops over dense tables."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsel_platform.selection import greedy
from vsel_platform.selection.diversity import normalise_rows
from vsel_platform.selection.graph import SCALE, Graph, knn_graph


def unit_rows(n, d=6, seed=0):
    return normalise_rows(np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32))


def edges(graph):
    """Dense tables: whether j is a neighbour of i, and the whole cosines there."""
    n, k = graph.neighbours.shape
    linked, cosines = np.zeros((n, n), np.bool_), np.zeros((n, n))
    for i in range(n):
        for place in range(k):
            if (j := graph.neighbours[i, place]) >= 0:
                linked[i, j], cosines[i, j] = True, np.rint(graph.cosines[i, place] * SCALE)
    return linked, cosines


def best(values, scores):
    """The row with the largest value; equal ones by score, then the lower row. None counts where a value is NaN."""
    rows = [i for i in range(len(values)) if not np.isnan(values[i])]
    return min(rows, key=lambda i: (-values[i], -scores[i], i))


def plain_k_center(graph, scores, count):
    linked, cosines = edges(graph)
    distance = np.where(linked, np.sqrt(np.maximum(0, 2 - 2 * np.float32(cosines / SCALE).astype(float))), np.inf)
    distance = np.minimum(distance, distance.T)
    nearest, chosen = np.full(len(scores), np.inf), []
    for _ in range(min(count, len(scores))):
        row = best(nearest, scores)
        chosen.append(row)
        nearest = np.minimum(nearest, distance[row])
        nearest[chosen] = np.nan
    return chosen


def plain_facility_location(graph, scores, count):
    _, cosines = edges(graph)
    cosines = np.maximum(cosines, 0)
    np.fill_diagonal(cosines, SCALE)
    chosen = []
    for _ in range(min(count, len(scores))):
        gains = np.array([cosines[:, [*chosen, row]].max(axis=1).sum() for row in range(len(scores))])
        gains[chosen] = np.nan
        chosen.append(best(gains, scores))
    return chosen


def plain_d2(graph, scores, count, forward, reverse):
    linked, cosines = edges(graph)
    squared = 2 - 2 * np.float32(cosines / SCALE).astype(float)
    values = scores + np.where(linked, np.exp(-forward * squared), 0) @ scores
    chosen = []
    for _ in range(min(count, len(scores))):
        row = best(values, np.zeros(len(scores)))
        chosen.append(row)
        values = values - np.where(linked[row], np.exp(-reverse * squared[row]), 0) * values[row]
        values[chosen] = np.nan
    return chosen


def plain_dedup(unit, scores, count, cosine):
    table = np.float32(np.rint((unit @ unit.T) * np.float32(SCALE)) / SCALE)
    chosen = []
    for row in sorted(range(len(scores)), key=lambda i: (-scores[i], i)):
        if len(chosen) < count and all(table[row, other] <= cosine for other in chosen):
            chosen.append(row)
    return chosen


def plain_mmd(unit, count, bandwidth):
    data = unit.astype(float)
    kernel = np.exp(-((data[:, None] - data[None]) ** 2).sum(axis=2) / (2 * bandwidth**2))
    chosen = []
    for _ in range(min(count, len(unit))):
        free = [i for i in range(len(unit)) if i not in chosen]
        sets = [[*chosen, i] for i in free]
        gaps = [kernel[np.ix_(s, s)].mean() - 2 * kernel[:, s].mean() + kernel.mean() for s in sets]
        chosen.append(free[int(np.argmin(np.round(gaps, 10)))])
    return chosen


def cases(draw):
    """A few rows with repeated vectors and repeated scores, a graph of them, and a count."""
    n = draw(st.integers(1, 14))
    kinds = draw(st.lists(st.integers(0, 9), min_size=n, max_size=n))
    unit = unit_rows(10, d=3, seed=draw(st.integers(0, 5)))[kinds]
    scores = np.array(draw(st.lists(st.sampled_from([0.0, 0.5, 0.5, 2.0]), min_size=n, max_size=n)))
    return unit, knn_graph(unit, draw(st.integers(1, 5))), scores, draw(st.integers(1, 16))


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_k_center_is_the_plain_one(data):
    _, graph, scores, count = cases(data.draw)
    assert greedy.k_center(graph, scores, count).tolist() == plain_k_center(graph, scores, count)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_facility_location_is_the_plain_one(data):
    _, graph, scores, count = cases(data.draw)
    assert greedy.facility_location(graph, scores, count).tolist() == plain_facility_location(graph, scores, count)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_near_duplicates_are_left_out_however_large_their_group(data):
    unit, graph, scores, count = cases(data.draw)
    cosine = data.draw(st.sampled_from([0.2, 0.9, 0.99999, 1.0]))
    found = greedy.without_near_duplicates(graph, unit, scores, count, cosine=cosine)
    assert found.tolist() == plain_dedup(unit, scores, count, cosine)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_herding_lowers_the_discrepancy_most_at_each_step(data):
    n = data.draw(st.integers(1, 12))
    unit = unit_rows(n, d=4, seed=data.draw(st.integers(0, 50)))
    count, bandwidth = data.draw(st.integers(1, 14)), data.draw(st.sampled_from([0.3, 1.0]))
    assert greedy.kernel_herding(unit, count, bandwidth=bandwidth).tolist() == plain_mmd(unit, count, bandwidth)


@pytest.mark.parametrize(("forward", "reverse"), [(1.0, 1.0), (0.0, 0.0), (5.0, 0.1)])
@pytest.mark.parametrize("seed", range(4))
def test_d2_passes_messages_forward_and_back(seed, forward, reverse):
    graph = knn_graph(unit_rows(40, seed=seed), 4)
    scores = np.random.default_rng(seed).random(40)
    found = greedy.d2_pruning(graph, scores, 25, forward=forward, reverse=reverse)
    assert found.tolist() == plain_d2(graph, scores, 25, forward, reverse)


def test_d2_by_hand():
    # 0 - 1 are near (squared distance 0.2), 2 is alone.
    graph = Graph(np.array([[1], [0], [-1]]), np.array([[0.9], [0.9], [0]], np.float32))
    near = np.exp(-0.2)
    # Forward: 1 + 0.8 near = 1.65, 0.8 + near = 1.62, 0.9. Taking 0 leaves 1.62 - near * 1.65 = 0.26 of row 1.
    assert 0.8 + near > 0.9 > 0.8 + near - near * (1 + 0.8 * near)
    assert greedy.d2_pruning(graph, np.array([1.0, 0.8, 0.9]), 3, forward=1, reverse=1).tolist() == [0, 2, 1]


def test_facility_location_reaches_its_bound():
    unit = unit_rows(9, d=2, seed=2)
    graph = knn_graph(unit, 8)
    _, cosines = edges(graph)
    cosines = np.maximum(cosines, 0)
    np.fill_diagonal(cosines, SCALE)
    chosen = greedy.facility_location(graph, np.zeros(9), 2)
    pairs = [cosines[:, [i, j]].max(axis=1).sum() for i in range(9) for j in range(i)]
    assert cosines[:, chosen].max(axis=1).sum() >= (1 - 1 / np.e) * max(pairs)


def test_equal_gains_go_by_score_although_floating_point_tells_them_apart():
    # Row 0 gathers 0.1 + 0.2, row 1 gathers 0.3; as float32 numbers their sums differ.
    neighbours = np.array([[-1], [-1], [0], [0], [1]])
    cosines = np.array([[0], [0], [0.1], [0.2], [0.3]], np.float32)
    for favourite in (0, 1):
        scores = np.zeros(5)
        scores[favourite] = 1.0
        assert greedy.facility_location(Graph(neighbours, cosines), scores, 1).tolist() == [favourite]


def test_k_center_begins_with_the_highest_score_and_goes_far():
    angles = np.radians([0, 1, 2, 90, 180])
    unit = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    found = greedy.k_center(knn_graph(unit, 4), np.array([0, 5.0, 0, 0, 0]), 3)
    assert found.tolist() == [1, 4, 3]


def test_copies_beyond_the_graph_s_neighbours_are_still_duplicates():
    unit = np.repeat(unit_rows(3, d=5), [60, 1, 5], axis=0)
    scores = np.random.default_rng(0).random(66)
    found = greedy.without_near_duplicates(knn_graph(unit, 10), unit, scores, 66, cosine=0.95)
    assert len(found) == 3
    assert found.tolist() == plain_dedup(unit, scores, 66, 0.95)


def test_large_loose_groups_keep_no_pair_above_the_limit():
    rng = np.random.default_rng(3)
    unit = normalise_rows(
        (unit_rows(8, d=12)[np.arange(400) % 8] + 0.04 * rng.normal(size=(400, 12))).astype(np.float32)
    )
    scores = rng.random(400)
    for cosine in (0.9, 0.98, 0.99):
        found = greedy.without_near_duplicates(knn_graph(unit, 5), unit, scores, 400, cosine=cosine)
        assert found.tolist() == plain_dedup(unit, scores, 400, cosine)


ALL = {
    "k_center": lambda u, g, s, c: greedy.k_center(g, s, c),
    "facility_location": lambda u, g, s, c: greedy.facility_location(g, s, c),
    "d2": lambda u, g, s, c: greedy.d2_pruning(g, s, c, forward=1.0, reverse=1.0),
    "dedup": lambda u, g, s, c: greedy.without_near_duplicates(g, u, s, c, cosine=0.99),
    "mmd": lambda u, g, s, c: greedy.kernel_herding(u, c, bandwidth=0.5),
}


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_no_row_is_chosen_twice_and_a_smaller_count_is_the_beginning(name, data):
    unit, graph, scores, count = cases(data.draw)
    found = ALL[name](unit, graph, scores, count).tolist()
    assert len(found) == len(set(found))
    assert set(found) <= set(range(len(scores)))
    assert len(found) == min(count, len(scores)) or name == "dedup"
    assert ALL[name](unit, graph, scores, max(1, count // 2)).tolist() == found[: max(1, count // 2)]


@pytest.mark.parametrize("name", ALL)
def test_the_order_of_the_rows_does_not_matter_where_none_are_equal(name):
    unit = unit_rows(80)
    scores = np.random.default_rng(2).random(80)
    order = np.random.default_rng(1).permutation(80)
    straight = ALL[name](unit, knn_graph(unit, 6), scores, 30)
    shuffled = ALL[name](unit[order], knn_graph(unit[order], 6), scores[order], 30)
    assert order[shuffled].tolist() == straight.tolist()


@pytest.mark.parametrize("name", ALL)
def test_nothing_to_choose_is_nothing(name):
    unit = unit_rows(1)
    found = ALL[name](unit, knn_graph(unit, 1), np.zeros(1), 0)
    assert (found.dtype, len(found)) == (np.int64, 0)
