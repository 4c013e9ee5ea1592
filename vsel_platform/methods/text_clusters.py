"""How unusual the questions of a row are: distance of their text vectors to the centroid of their cluster.

Free2DS's clustering score (specification C1.6) with what its quirks call for: a text that occurs often is trained on
once, and a quantile sets the scale instead of the largest distance.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vsel_platform.errors import SelectionError
from vsel_platform.selection.kmeans import Vectors, fit_kmeans

SCALE_QUANTILE = 0.99
_ROWS_PER_BLOCK = 8192


@dataclass(frozen=True, slots=True)
class TextClusters:
    """Cluster int32 [n] and scaled distance float64 [n] in [0, 1] of each turn; -1 and NaN for one without vector."""

    labels: NDArray[np.int32]
    distances: NDArray[np.float64]


def text_scores(
    vectors: Vectors, row_of_turn: NDArray[np.int64], n_rows: int, n_clusters: int, seed: int
) -> NDArray[np.float64]:
    """Mean scaled distance of each row's turns to their centroids, float64 [n_rows]; high is unusual.

    `vectors` float32 [n, d] are those of the human turns, `row_of_turn` int64 [n] the rows they belong to. NaN for a
    row without a turn that has a finite vector. Does not depend on the order of the turns. Raises SelectionError if
    the arrays do not fit together.
    """
    return row_means(cluster_texts(vectors, n_clusters, seed).distances, row_of_turn, n_rows)


def cluster_texts(vectors: Vectors, n_clusters: int, seed: int) -> TextClusters:
    """k-means on the DISTINCT vectors of [n, d], and min(D / q, 1) of every turn.

    D is the squared Euclidean distance to the centroid of the turn's cluster, q the 99 % quantile of D over the
    distinct vectors (0 for all if q is 0). Vectors that are not finite take no part.
    """
    if vectors.ndim != 2 or n_clusters < 1:
        raise SelectionError(f"text clusters need vectors [n, d] and clusters; got {vectors.shape} and {n_clusters}")
    labels = np.full(len(vectors), -1, np.int32)
    distances = np.full(len(vectors), np.nan)
    finite = np.flatnonzero(np.isfinite(vectors.sum(axis=1, dtype=np.float64)))
    if not len(finite):
        return TextClusters(labels, distances)
    first, distinct_of = _distinct(vectors, finite)
    distinct = np.ascontiguousarray(vectors[first], np.float32)
    fit = fit_kmeans(distinct, min(n_clusters, len(distinct)), seed=seed)
    squared = _squared_distances(distinct, fit.centroids, fit.labels)
    scale = np.quantile(squared, SCALE_QUANTILE)
    scaled = np.minimum(squared / scale, 1.0) if scale > 0 else np.zeros(len(squared))
    labels[finite], distances[finite] = fit.labels[distinct_of], scaled[distinct_of]
    return TextClusters(labels, distances)


def row_means(values: NDArray[np.float64], row_of_turn: NDArray[np.int64], n_rows: int) -> NDArray[np.float64]:
    """Mean of the finite `values` [n] of each row, float64 [n_rows]; NaN for a row without any.

    Raises SelectionError if the arrays have different lengths or a row number is not in [0, n_rows).
    """
    if len(values) != len(row_of_turn):
        raise SelectionError(f"{len(values)} text vectors and {len(row_of_turn)} row numbers; give one for each turn")
    if len(row_of_turn) and (row_of_turn.min() < 0 or row_of_turn.max() >= n_rows):
        raise SelectionError(
            f"row numbers run from {row_of_turn.min()} to {row_of_turn.max()}, and there are {n_rows} rows"
        )
    finite = np.isfinite(values)
    rows = row_of_turn[finite]
    counts = np.bincount(rows, minlength=n_rows)
    sums = np.bincount(rows, weights=values[finite], minlength=n_rows)
    means = np.full(n_rows, np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means


def _distinct(vectors: Vectors, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A row of each distinct vector, in the order of its hash, and the index of every row's vector therein.

    The order of hashes depends on the vectors alone: so does the clustering.
    """
    hashes = [hashlib.blake2b(np.ascontiguousarray(vectors[i]).data, digest_size=16).digest() for i in rows]
    _, first, inverse = np.unique(np.array(hashes, "S16"), return_index=True, return_inverse=True)
    return rows[first], inverse.astype(np.int64)


def _squared_distances(data: Vectors, centroids: Vectors, labels: NDArray[np.int32]) -> NDArray[np.float64]:
    squared = np.empty(len(data))
    for start in range(0, len(data), _ROWS_PER_BLOCK):
        block = slice(start, start + _ROWS_PER_BLOCK)
        difference = data[block] - centroids[labels[block]]
        squared[block] = np.einsum("ij,ij->i", difference, difference, dtype=np.float64)
    return squared
