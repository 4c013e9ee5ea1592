"""Neighbour graphs against a dense table of all cosines: exact for few rows, nearly complete for many."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsel_platform.errors import SelectionError
from vsel_platform.selection import graph as graphs
from vsel_platform.selection.diversity import normalise_rows
from vsel_platform.selection.graph import SCALE, knn_graph


def unit_rows(n, d=16, seed=0, groups=0):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, d))
    if groups:
        rows = 3 * rng.normal(size=(groups, d))[rng.integers(0, groups, n)] + rows
    return normalise_rows(rows.astype(np.float32))


def dense_graph(unit, k):
    """(neighbours, whole cosines) by sorting every row's whole table: the more alike first, then the lower row."""
    table = np.rint((unit @ unit.T) * np.float32(SCALE)).astype(np.int64)
    np.fill_diagonal(table, -10 * SCALE)
    rows = np.arange(len(unit))
    order = np.array([np.lexsort((rows, -row))[: min(k, len(unit) - 1)] for row in table])
    return order, np.take_along_axis(table, order, axis=1)


@pytest.fixture
def small_lists(monkeypatch):
    """The search by lists for a few hundred rows."""
    monkeypatch.setattr(graphs, "EXACT_ROWS", 100)
    monkeypatch.setattr(graphs, "ROWS_PER_LIST", 40)


@pytest.mark.parametrize(("n", "k"), [(2, 1), (7, 3), (7, 6), (7, 50), (1100, 5)])
def test_a_graph_is_what_sorting_all_pairs_gives(n, k):
    unit = unit_rows(n)
    found = knn_graph(unit, k)
    neighbours, cosines = dense_graph(unit, k)
    np.testing.assert_array_equal(found.neighbours, neighbours)
    np.testing.assert_array_equal(np.rint(found.cosines * SCALE), cosines)
    assert (found.neighbours.dtype, found.cosines.dtype) == (np.int64, np.float32)


def test_a_single_row_has_no_neighbour():
    found = knn_graph(np.ones((1, 3), np.float32), 4)
    assert found.neighbours.shape == found.cosines.shape == found.distances.shape == (1, 0)


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_rows_with_many_equal_ones_find_the_lowest_of_them(data):
    n = data.draw(st.integers(2, 25))
    kinds = np.array(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
    k = data.draw(st.integers(1, 30))
    unit = np.eye(4, dtype=np.float32)[kinds]
    found = knn_graph(unit, k)
    np.testing.assert_array_equal(found.neighbours, dense_graph(unit, k)[0])
    assert not (found.neighbours == np.arange(n)[:, None]).any()
    assert (np.diff(found.cosines, axis=1) <= 0).all()


def test_the_order_of_the_rows_does_not_matter_where_none_are_equal():
    unit = unit_rows(300)
    order = np.random.default_rng(1).permutation(300)
    straight, shuffled = knn_graph(unit, 4), knn_graph(unit[order], 4)
    np.testing.assert_array_equal(order[shuffled.neighbours], straight.neighbours[order])
    np.testing.assert_array_equal(shuffled.cosines, straight.cosines[order])


def test_distances_are_those_of_the_vectors():
    unit = unit_rows(60, groups=5)
    found = knn_graph(unit, 7)
    exact = np.linalg.norm(unit[:, None] - unit[found.neighbours], axis=2)
    # A cosine to 5 decimals is a squared distance to 1e-5.
    np.testing.assert_allclose(found.distances**2, exact**2, atol=1.1e-5)
    assert (np.diff(found.distances, axis=1) >= 0).all()


def test_lists_find_nearly_all_neighbours(small_lists):
    unit = unit_rows(3000, groups=40)
    found = knn_graph(unit, 8)
    neighbours, _ = dense_graph(unit, 8)
    shared = np.mean(
        [len(set(a) & set(b)) for a, b in zip(found.neighbours.tolist(), neighbours.tolist(), strict=True)]
    )
    assert shared / 8 > 0.95
    known = found.neighbours >= 0
    rows = np.nonzero(known)[0]
    cosines = np.einsum("ij,ij->i", unit[rows], unit[found.neighbours[known]])
    np.testing.assert_allclose(found.cosines[known], cosines, atol=1e-5)
    assert not (found.neighbours == np.arange(3000)[:, None]).any()
    assert all(len(set(row)) == 8 for row in found.neighbours.tolist())


@pytest.mark.parametrize("n", [90, 900])
def test_threads_and_repetition_change_nothing(small_lists, n):
    unit = unit_rows(n, groups=9)
    first, again, alone = (
        knn_graph(unit, 5, seed=3),
        knn_graph(unit, 5, seed=3),
        knn_graph(unit, 5, seed=3, n_threads=1),
    )
    for other in (again, alone):
        assert first.neighbours.tobytes() == other.neighbours.tobytes()
        assert first.cosines.tobytes() == other.cosines.tobytes()


def test_a_row_without_others_in_its_lists_has_fewer_neighbours(small_lists):
    found = knn_graph(unit_rows(800), 799)
    missing = found.neighbours < 0
    assert missing.any()
    assert np.isinf(found.distances[missing]).all()
    assert (found.cosines[missing] == 0).all()
    assert (np.diff(missing.astype(int), axis=1) >= 0).all()  # those that are missing come last


def test_rows_that_are_all_equal_are_each_other_s_neighbours(small_lists):
    found = knn_graph(np.tile(unit_rows(1), (300, 1)), 3)
    assert found.neighbours[0].tolist() == [1, 2, 3]
    assert found.neighbours[250].tolist() == [0, 1, 2]
    assert (found.cosines == 1).all()


def test_many_dimensions_are_searched_in_a_projection(small_lists):
    unit = unit_rows(400, d=graphs.MIN_DIMENSIONS, groups=8)
    found = knn_graph(unit, 3)
    neighbours, _ = dense_graph(unit, 3)
    assert (found.neighbours[:, 0] == neighbours[:, 0]).mean() > 0.9


@pytest.mark.parametrize(
    ("rows", "k", "message"),
    [
        (np.empty((0, 3)), 2, "0 rows"),
        (np.ones((3, 3)), 0, "k = 0"),
        (np.array([[1.0, np.nan], [1.0, 0.0]]), 1, "finite"),
        (np.array([[1.0, np.inf], [1.0, 0.0]]), 1, "finite"),
    ],
)
def test_unusable_input_is_refused(rows, k, message):
    with pytest.raises(SelectionError, match=message):
        knn_graph(rows.astype(np.float32), k)
