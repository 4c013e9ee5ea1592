"""Selections side by side: what they share, what they cover, and how they differ from random ones. Pure functions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vsel_platform.selection.stable_hash import stable_uniform

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Pool:
    """What selections are compared on: rows by number, sorted by id.

    tasks: number of the task of every row int64 [n]. images, image_rows: int64 [m], the number of an image and that of
    a row that shows it, by row. clusters: cluster int64 [n] (-1: none). tokens: text tokens float64 [n].
    """

    sample_ids: Sequence[str]
    tasks: Indices
    images: Indices
    image_rows: Indices
    clusters: Indices
    tokens: Floats


@dataclass(frozen=True, slots=True)
class Facts:
    """One selection: rows, and shares of the pool's tasks, clusters and distinct images that it has a row of.

    repeated_images: rows that show an image which a selected row before them shows. tokens: text tokens of all rows.
    """

    rows: int
    task_coverage: float
    cluster_coverage: float
    image_coverage: float
    repeated_images: int
    tokens: float


def facts(pool: Pool, rows: Indices) -> Facts:
    """Facts about the selection of row numbers `rows`."""
    chosen = np.zeros(len(pool.sample_ids), bool)
    chosen[rows] = True
    inside = chosen[pool.image_rows]
    shown, showing = pool.images[inside], pool.image_rows[inside]
    _, first = np.unique(shown, return_index=True)
    again = np.ones(len(shown), bool)
    again[first] = False
    n_images = len(np.unique(pool.images))
    return Facts(
        len(rows),
        _coverage(pool.tasks, rows),
        _coverage(pool.clusters, rows),
        len(first) / n_images if n_images else 0.0,
        len(np.unique(showing[again])),
        float(pool.tokens[rows].sum()),
    )


def _coverage(labels: Indices, rows: Indices) -> float:
    everything = np.unique(labels[labels >= 0])
    own = labels[rows]
    return len(np.unique(own[own >= 0])) / len(everything) if len(everything) else 0.0


def jaccard(first: Indices, second: Indices) -> float:
    """Shared rows over all rows of two selections; 1 for two empty ones."""
    shared = len(np.intersect1d(first, second))
    union = len(np.unique(first)) + len(np.unique(second)) - shared
    return shared / union if union else 1.0


def rank_correlation(first: Floats, second: Floats) -> float | None:
    """Spearman's correlation of two score columns over the rows that have both; None below 3 rows or if one is
    constant."""
    both = np.isfinite(first) & np.isfinite(second)
    if both.sum() < 3:
        return None
    a, b = (_mean_ranks(column[both]) for column in (first, second))
    if a.std() == 0 or b.std() == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def _mean_ranks(values: Floats) -> Floats:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2.0)[place]


def random_order(pool: Pool, seed: int) -> Indices:
    """Rows in the order of a stable hash: the first ones are a random selection, what a method has to beat."""
    uniform = stable_uniform(seed, pool.sample_ids)
    return np.lexsort((np.arange(len(uniform)), uniform))


@dataclass(frozen=True, slots=True)
class Band:
    """Mean, smallest and largest value over random selections of the same size."""

    mean: float
    low: float
    high: float


def band(values: Sequence[float]) -> Band:
    """The band of some values."""
    return Band(float(np.mean(values)), float(np.min(values)), float(np.max(values)))


def random_bands(pool: Pool, rows: Indices, orders: Sequence[Indices]) -> Mapping[str, Band]:
    """Bands of the facts of random selections as large as `rows`, the first of each of `orders`, and of the overlap
    (Jaccard) that `rows` and the random ones among each other have with them."""
    drawn = [order[: len(rows)] for order in orders]
    found = [facts(pool, one) for one in drawn]
    names = ("task_coverage", "cluster_coverage", "image_coverage", "repeated_images", "tokens")
    bands = {name: band([float(getattr(one, name)) for one in found]) for name in names}
    pairs = [jaccard(a, b) for i, a in enumerate(drawn) for b in drawn[:i]]
    return bands | {"overlap": band([jaccard(rows, one) for one in drawn]), "random_overlap": band(pairs or [1.0])}
