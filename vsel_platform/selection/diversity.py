"""Clusters, and how typical a vector is of its cluster."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
SEEDING_ROWS_PER_CLUSTER = 50


@dataclass(frozen=True, slots=True)
class Clustering:
    """Labels int32 [n], centroids float32 [k, d], inertia (sum of squared distances)."""

    labels: NDArray[np.int32]
    centroids: Vectors
    inertia: float


def normalise_rows(vectors: Vectors) -> Vectors:
    """Rows divided by their L2 norm, float32 [n, d]; zero rows stay zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 0, norms, 1.0), np.float32)


def fit_kmeans(vectors: Vectors, n_clusters: int, *, seed: int, n_iterations: int = 25) -> Clustering:
    """k-means by faiss on float32 [n, d], seeded; callers pass rows sorted by id, so that order does not matter."""
    import faiss
    from sklearn.cluster import kmeans_plusplus

    data = np.ascontiguousarray(vectors, np.float32)
    step = max(1, len(data) // (SEEDING_ROWS_PER_CLUSTER * n_clusters))
    seeds, _ = kmeans_plusplus(data[::step], n_clusters, random_state=seed)
    kmeans = faiss.Kmeans(
        data.shape[1],
        n_clusters,
        niter=n_iterations,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=1024,
    )
    kmeans.train(data, init_centroids=seeds)
    distances, labels = kmeans.index.search(data, 1)
    return Clustering(labels[:, 0].astype(np.int32), np.asarray(kmeans.centroids, np.float32), float(distances.sum()))


def typicality(vectors: Vectors, n_neighbours: int) -> NDArray[np.float64]:
    """Mean inner product with the `n_neighbours` nearest OTHER rows, float64 [n]; NaN for a single row.

    PreSel's neighbour centrality (arXiv 2503.07591) on normalised rows.
    """
    n = len(vectors)
    k = min(n_neighbours, n - 1)
    if k < 1:
        return np.full(n, np.nan)
    result = np.empty(n, np.float64)
    for start in range(0, n, 2048):
        block = vectors[start : start + 2048] @ vectors.T
        rows = np.arange(len(block))
        block[rows, start + rows] = -np.inf
        nearest = np.partition(block, n - k, axis=1)[:, n - k :]
        result[start : start + 2048] = nearest.astype(np.float64).mean(axis=1)
    return result
