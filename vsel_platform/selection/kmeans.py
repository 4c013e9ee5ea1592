"""k-means for many clusters on few cores: seeded by swaps on a sample, refined in a projection, finished exactly.

Greedy k-means++ (Arthur & Vassilvitskii 2007) and swap-based local search (Lattanzi & Sohler 2019) choose the seeds on
a sample; Lloyd iterations then run on all rows in the space of the leading principal components, where the k-means
cost is nearly that of the whole space (Cohen et al., arXiv 1410.6801); the last iterations use all dimensions.
Nearest centroids are found by faiss.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vsel_platform.errors import SelectionError
from vsel_platform.selection.seeding import choose_seeds
from vsel_platform.selection.workers import Workers, workers

Vectors = NDArray[np.float32]
Labels = NDArray[np.int32]

PROJECTED_DIMENSIONS = 160
# With fewer rows or dimensions the whole space is cheap enough.
MIN_PROJECTED_ROWS = 5000
MIN_DIMENSIONS = 320
PCA_ROWS = 4096
SAMPLE_ITERATIONS = 4
# Iterations stop when the inertia falls by less than this share. The projection is only an approximation, so it is
# left early.
TOLERANCE = 1e-4
PROJECTED_TOLERANCE = 3e-3
SEEDING_ROWS_PER_CLUSTER = 32
MIN_SEEDING_ROWS = 8192
MAX_SEEDING_ROWS = 32_768


@dataclass(frozen=True, slots=True)
class Clustering:
    """Labels int32 [n], centroids float32 [k, d], inertia (sum of squared distances), iterations over all rows.

    Every row is with its nearest centroid, and no cluster is empty.
    """

    labels: Labels
    centroids: Vectors
    inertia: float
    n_iterations: int


def fit_kmeans(
    vectors: Vectors,
    n_clusters: int,
    *,
    seed: int,
    n_iterations: int = 50,
    n_threads: int = 0,
) -> Clustering:
    """Cluster float32 rows [n, d] by Euclidean distance.

    Iterations over all rows stop when the inertia hardly falls any more, at `n_iterations` at the latest. The
    result depends on rows, their order and seed, not on `n_threads` (0 = all): callers sort rows by id, so that it
    depends on the set of rows alone. There are fewer clusters than asked for if there are fewer distinct rows.
    Raises SelectionError for no rows, no clusters, or values that are not finite.
    """
    data = np.ascontiguousarray(vectors, np.float32)
    if data.ndim != 2 or not len(data) or n_clusters < 1:
        raise SelectionError(f"k-means needs rows and clusters; got an array {data.shape} and {n_clusters} clusters")
    if not np.isfinite(data.sum()):
        raise SelectionError("k-means: a vector is not finite; leave rows without an embedding out")
    rng = np.random.default_rng(seed)
    with workers(n_threads) as pool:
        projected = len(data) >= MIN_PROJECTED_ROWS and data.shape[1] >= MIN_DIMENSIONS
        coarse = leading_components(data, rng, pool) if projected else data
        sample = coarse[_sample(len(data), n_clusters, rng)]
        seeds = choose_seeds(sample, min(n_clusters, len(data)), rng, pool)
        start = lloyd(sample, seeds, SAMPLE_ITERATIONS, TOLERANCE, pool).centroids
        fit = lloyd(coarse, start, n_iterations, PROJECTED_TOLERANCE if projected else TOLERANCE, pool)
        if projected:
            zeros = np.zeros((len(fit.centroids), data.shape[1]), np.float32)
            exact = lloyd(data, _means(data, fit.labels, zeros, pool), 1, TOLERANCE, pool)
            fit = Clustering(exact.labels, exact.centroids, exact.inertia, fit.n_iterations + 1)
    return _without_empty(fit)


def nearest_centroids(data: Vectors, centroids: Vectors, pool: Workers) -> tuple[Labels, NDArray[np.float32]]:
    """Label int32 [n] of the nearest centroid of each row, and the squared distance float32 [n]."""
    import faiss

    index = faiss.IndexFlatL2(data.shape[1])
    index.add(centroids)
    parts = pool.blocks(lambda rows: index.search(data[rows], 1), len(data))
    distances = np.concatenate([found[0][:, 0] for found in parts])
    return np.concatenate([found[1][:, 0] for found in parts]).astype(np.int32), np.maximum(distances, 0)


def _sample(n_rows: int, n_clusters: int, rng: np.random.Generator) -> NDArray[np.int64]:
    size = min(max(SEEDING_ROWS_PER_CLUSTER * n_clusters, MIN_SEEDING_ROWS), MAX_SEEDING_ROWS)
    size = max(size, 2 * n_clusters)
    return np.arange(n_rows) if size >= n_rows else np.sort(rng.choice(n_rows, size, replace=False))


def leading_components(data: Vectors, rng: np.random.Generator, pool: Workers) -> Vectors:
    """Rows in the space of the leading principal components of a sample, float32 [n, PROJECTED_DIMENSIONS]."""
    from scipy.linalg import eigh  # type: ignore[import-untyped]

    d = data.shape[1]
    sample = data[np.sort(rng.choice(len(data), min(PCA_ROWS, len(data)), replace=False))]
    sample = sample - sample.mean(axis=0)
    covariance = sum(pool.blocks(lambda rows: sample[rows].T @ sample[rows], len(sample), 512))
    _, basis = eigh(covariance, subset_by_index=[d - PROJECTED_DIMENSIONS, d - 1], driver="evr")
    axes = np.ascontiguousarray(basis, np.float32)
    return np.concatenate(pool.blocks(lambda rows: data[rows] @ axes, len(data)))


def lloyd(data: Vectors, centroids: Vectors, n_iterations: int, tolerance: float, pool: Workers) -> Clustering:
    """Lloyd iterations; ends with an assignment, so that labels belong to the centroids that are returned."""
    labels, distances = nearest_centroids(data, centroids, pool)
    inertia = float(distances.sum(dtype=np.float64))
    for iteration in range(1, n_iterations):
        moved = _means(data, labels, centroids, pool)
        _refill_empty(moved, data, labels, distances)
        new_labels, distances = nearest_centroids(data, moved, pool)
        new_inertia = float(distances.sum(dtype=np.float64))
        gained = inertia - new_inertia
        labels, centroids, inertia = new_labels, moved, new_inertia
        if gained <= tolerance * inertia:
            return Clustering(labels, centroids, inertia, iteration + 1)
    return Clustering(labels, centroids, inertia, n_iterations)


def _means(data: Vectors, labels: Labels, empty: Vectors, pool: Workers) -> Vectors:
    """Mean of the rows of each cluster, float32 [k, d]; a cluster without rows takes its row of `empty`."""
    from scipy.sparse import csr_matrix  # type: ignore[import-untyped]

    counts = np.bincount(labels, minlength=len(empty))
    ends = np.concatenate([[0], np.cumsum(counts)])
    members = np.argsort(labels, kind="stable")
    one = np.ones(len(data), np.float32)
    membership = csr_matrix((one, members, ends), shape=(len(empty), len(data)))
    sums = np.concatenate(pool.blocks(lambda rows: membership[rows] @ data, len(empty), 64))
    means = sums / np.maximum(counts, 1).astype(np.float32)[:, None]
    return np.asarray(np.where(counts[:, None] > 0, means, empty), np.float32)


def _refill_empty(centroids: Vectors, data: Vectors, labels: Labels, distances: NDArray[np.float32]) -> None:
    """Move centroids without rows, in place, onto the rows that are farthest from their own."""
    empty = np.flatnonzero(np.bincount(labels, minlength=len(centroids)) == 0)
    if len(empty):
        centroids[empty] = data[np.argsort(-distances, kind="stable")[: len(empty)]]


def _without_empty(fit: Clustering) -> Clustering:
    used, labels = np.unique(fit.labels, return_inverse=True)
    return Clustering(labels.astype(np.int32), fit.centroids[used], fit.inertia, fit.n_iterations)
