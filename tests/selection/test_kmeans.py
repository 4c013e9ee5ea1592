"""k-means: quality against scikit-learn, and the same result for every number of threads."""

import numpy as np
import pytest

from vsel_platform.errors import SelectionError
from vsel_platform.selection import kmeans
from vsel_platform.selection.kmeans import fit_kmeans


def overlapping(n, d, n_groups, seed=0):
    rng = np.random.default_rng(seed)
    scale = 1 / np.sqrt(np.arange(1, d + 1))
    centres = rng.standard_normal((n_groups, d)) * scale
    return (centres[rng.integers(0, n_groups, n)] + 0.8 * rng.standard_normal((n, d)) * scale).astype(np.float32)


@pytest.fixture(scope="module")
def wide():
    """Enough rows and dimensions for the projected path."""
    return overlapping(kmeans.MIN_PROJECTED_ROWS, kmeans.MIN_DIMENSIONS, 80)


@pytest.mark.parametrize("case", ["projected", "whole space"])
def test_inertia_is_within_half_a_percent_of_scikit_learn(case, wide):
    from sklearn.cluster import KMeans

    data, k = (wide, 50) if case == "projected" else (overlapping(3000, 24, 60), 30)
    found = fit_kmeans(data, k, seed=1)
    assert len(found.centroids) == k
    assert found.inertia <= 1.005 * KMeans(k, random_state=0).fit(data).inertia_


@pytest.mark.parametrize("case", ["projected", "whole space"])
def test_the_number_of_threads_does_not_change_a_bit(case, wide):
    data, k = (wide, 50) if case == "projected" else (overlapping(3000, 24, 60), 30)
    one, three = (fit_kmeans(data, k, seed=1, n_threads=n) for n in (1, 3))
    assert one.labels.tobytes() == three.labels.tobytes()
    assert one.centroids.tobytes() == three.centroids.tobytes()
    assert one.inertia == three.inertia


def test_every_row_is_with_its_nearest_centroid_after_the_projection(wide):
    found = fit_kmeans(wide, 50, seed=3)
    data, centroids = wide.astype(np.float64), found.centroids.astype(np.float64)
    distances = (data**2).sum(1)[:, None] - 2 * data @ centroids.T + (centroids**2).sum(1)
    own = distances[np.arange(len(data)), found.labels]
    assert (own <= distances.min(axis=1) + 1e-4).all()
    assert found.inertia == pytest.approx(own.sum(), rel=1e-5)


def test_fewer_distinct_rows_than_clusters_give_fewer_clusters():
    rows = np.repeat(np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32), 25, axis=0)
    found = fit_kmeans(rows, 10, seed=0)
    assert len(found.centroids) == 4
    assert len(set(found.labels.tolist())) == 4
    assert found.inertia == pytest.approx(0, abs=1e-3)


def test_no_cluster_is_empty():
    found = fit_kmeans(overlapping(400, 5, 3), 120, seed=2)
    assert np.bincount(found.labels).min() >= 1
    assert len(found.centroids) == found.labels.max() + 1


@pytest.mark.parametrize("n", [1, 2])
def test_very_few_rows(n):
    found = fit_kmeans(np.eye(n, dtype=np.float32), 5, seed=0)
    assert len(set(found.labels.tolist())) == n


@pytest.mark.parametrize(("rows", "k", "message"), [
    (np.empty((0, 3)), 2, "needs rows"),
    (np.ones((3, 3)), 0, "needs rows and clusters"),
    (np.array([[1.0, np.nan]]), 1, "not finite"),
])  # fmt: skip
def test_unusable_input_is_refused(rows, k, message):
    with pytest.raises(SelectionError, match=message):
        fit_kmeans(rows.astype(np.float32), k, seed=0)
