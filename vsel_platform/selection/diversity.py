"""Clusters, and how typical a vector is of its cluster."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vsel_platform.selection.kmeans import Clustering, Labels, Vectors, fit_kmeans
from vsel_platform.selection.workers import workers

__all__ = [
    "Clustering",
    "Labels",
    "Vectors",
    "cluster_typicality",
    "fit_kmeans",
    "neighbours",
    "normalise_rows",
    "typicality",
]

ROWS_PER_BLOCK = 2048


def normalise_rows(vectors: Vectors) -> Vectors:
    """Rows divided by their L2 norm, float32 [n, d]; zero rows stay zero."""
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
    return np.asarray(vectors / np.where(norms > 0, norms, 1.0), np.float32)


def neighbours(vectors: Vectors, n_neighbours: int) -> tuple[Vectors, NDArray[np.int64]]:
    """The nearest OTHER rows by inner product: similarities float32 and indices int64, both [n, k], best first.

    k = min(n_neighbours, n - 1); equal similarities are in order of index.
    """
    n = len(vectors)
    k = max(0, min(n_neighbours, n - 1))
    found = np.empty((n, k), np.float32), np.empty((n, k), np.int64)
    for start, block in _similarity_blocks(vectors):
        order = np.argsort(-block, axis=1, kind="stable")[:, :k]
        found[0][start : start + len(block)] = np.take_along_axis(block, order, axis=1)
        found[1][start : start + len(block)] = order
    return found


def typicality(vectors: Vectors, n_neighbours: int) -> NDArray[np.float64]:
    """Mean inner product with the `n_neighbours` nearest OTHER rows, float64 [n]; NaN for a single row.

    PreSel's neighbour centrality (arXiv 2503.07591) on normalised rows.
    """
    n = len(vectors)
    k = min(n_neighbours, n - 1)
    if k < 1:
        return np.full(n, np.nan)
    result = np.empty(n, np.float64)
    for start, block in _similarity_blocks(vectors):
        block.partition(n - k, axis=1)
        result[start : start + len(block)] = block[:, n - k :].mean(axis=1, dtype=np.float64)
    return result


def cluster_typicality(
    vectors: Vectors, labels: Labels, n_neighbours: int, *, n_threads: int = 0
) -> NDArray[np.float64]:
    """Typicality among the rows with the same label, float64 [n]; NaN for a row that is alone.

    Rows with a negative label are left out: nobody's neighbours, and NaN themselves. The number of threads (0 = all)
    does not change the result.
    """
    result = np.full(len(vectors), np.nan)
    order = np.argsort(labels, kind="stable")
    order = order[labels[order] >= 0]
    groups = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)

    def score(members: NDArray[np.int64]) -> None:
        result[members] = typicality(vectors[members], n_neighbours)

    with workers(n_threads) as pool:
        pool.map(score, groups)
    return result


def _similarity_blocks(vectors: Vectors) -> Iterator[tuple[int, Vectors]]:
    """(first row, inner products float32 [rows, n] with -inf for a row with itself)."""
    for start in range(0, len(vectors), ROWS_PER_BLOCK):
        block = vectors[start : start + ROWS_PER_BLOCK] @ vectors.T
        rows = np.arange(len(block))
        block[rows, start + rows] = -np.inf
        yield start, block
