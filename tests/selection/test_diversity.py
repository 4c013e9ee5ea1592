"""Clusters and typicality against plain definitions."""

import numpy as np
import pytest

from vsel_platform.selection.diversity import cluster_typicality, fit_kmeans, neighbours, normalise_rows, typicality


def mixture(n, d, k, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(k, d)) * 4
    labels = rng.integers(0, k, n)
    return (centres[labels] + 0.3 * rng.normal(size=(n, d))).astype(np.float32), labels


def test_kmeans_finds_separated_groups_and_reports_its_own_inertia():
    data, truth = mixture(600, 8, 5)
    found = fit_kmeans(data, 5, seed=1)
    for label in range(5):
        assert len(set(truth[found.labels == label])) == 1
    inertia = ((data - found.centroids[found.labels]) ** 2).sum()
    assert found.inertia == pytest.approx(float(inertia), rel=1e-4)


def test_kmeans_is_the_same_every_time():
    data, _ = mixture(500, 6, 9)
    a, b = (fit_kmeans(data, 9, seed=3) for _ in range(2))
    assert a.labels.tolist() == b.labels.tolist()
    assert a.centroids.tobytes() == b.centroids.tobytes()


def test_every_row_is_with_its_nearest_centroid():
    data, _ = mixture(300, 5, 4)
    found = fit_kmeans(data, 12, seed=0)
    distances = ((data[:, None] - found.centroids[None]) ** 2).sum(-1)
    own = distances[np.arange(len(data)), found.labels]
    assert (own <= distances.min(1) + 1e-3).all()


@pytest.mark.parametrize("n", [2, 3, 7, 2100])
def test_typicality_is_the_mean_of_the_nearest_others(n):
    data = normalise_rows(np.random.default_rng(n).normal(size=(n, 16)).astype(np.float32))
    similarity = (data @ data.T).astype(np.float64)
    np.fill_diagonal(similarity, -np.inf)
    expected = np.sort(similarity, axis=1)[:, -min(5, n - 1) :].mean(axis=1)
    assert np.abs(typicality(data, 5) - expected).max() < 1e-6


def test_a_single_row_has_no_typicality():
    assert np.isnan(typicality(np.ones((1, 3), np.float32), 5)).all()


def test_zero_rows_stay_zero():
    rows = normalise_rows(np.array([[3, 4], [0, 0]], np.float32))
    assert rows.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0, 0]]


def test_neighbours_are_the_nearest_others_best_first():
    data = normalise_rows(np.random.default_rng(3).normal(size=(2100, 8)).astype(np.float32))
    similarities, indices = neighbours(data, 4)
    assert indices.shape == (2100, 4)
    assert not (indices == np.arange(2100)[:, None]).any()
    assert (np.diff(similarities, axis=1) <= 0).all()
    assert np.allclose(similarities.mean(axis=1), typicality(data, 4), atol=1e-6)
    assert neighbours(data[:1], 4)[0].shape == (1, 0)


def test_typicality_of_clusters_counts_the_own_cluster_only_whatever_the_threads():
    data = normalise_rows(np.random.default_rng(4).normal(size=(200, 8)).astype(np.float32))
    labels = (np.arange(200) % 7).astype(np.int32)
    labels[0] = 99
    one, three = (cluster_typicality(data, labels, 5, n_threads=n) for n in (1, 3))
    assert one.tobytes() == three.tobytes()
    assert np.isnan(one[0])
    members = np.flatnonzero(labels == 3)
    assert np.allclose(one[members], typicality(data[members], 5))
