"""Quotas: in which groups rows compete, and what share of the budget each group gets."""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vsel_platform.methods.api import Floats, Groups, Indices, Options, Quota, Signals
from vsel_platform.methods.geometry_scores import ClusterOptions, clustering_of
from vsel_platform.selection.diversity import normalise_rows

DENSITY_ROWS = 1000
NO_VECTOR = "no vector"


def one_group(signals: Signals, scores: Floats, options: Options) -> Groups:
    """All rows compete with each other."""
    return Groups(np.zeros(len(scores), np.int64), ["all"], [1.0])


def by_task(signals: Signals, scores: Floats, options: Options) -> Groups:
    """Rows compete inside their task; each task keeps its share of the rows."""
    names = sorted(set(signals.tasks))
    number = {name: i for i, name in enumerate(names)}
    labels = np.fromiter((number[task] for task in signals.tasks), np.int64, len(signals.tasks))
    return Groups(labels, names, np.bincount(labels, minlength=len(names)).astype(float).tolist())


def equal_tasks(signals: Signals, scores: Floats, options: Options) -> Groups:
    """Rows compete inside their task; each task gets the same share, as far as it has the rows."""
    groups = by_task(signals, scores, options)
    return Groups(groups.labels, groups.names, [1.0] * len(groups.names))


def by_cluster(signals: Signals, scores: Floats, options: ClusterOptions) -> Groups:
    """Rows compete inside their cluster; each cluster keeps its share of the rows."""
    labels = signals.clusters(clustering_of(options)[0]).labels
    return _cluster_groups(labels, _sizes(labels), scores)


def _sizes(labels: Indices) -> Floats:
    return np.bincount(labels[labels >= 0], minlength=1).astype(np.float64)


def _cluster_groups(labels: Indices, weights: Floats, scores: Floats) -> Groups:
    """Clusters with their weights. Rows with a score but no vector are one more group that keeps its share of the rows:
    no cluster has a place for them, and without a group they would be lost."""
    names = [f"cluster {i}" for i in range(len(weights))]
    rest = (labels < 0) & np.isfinite(scores)
    if not rest.any():
        return Groups(labels, names, weights.tolist())
    share = rest.sum() / max(1, (labels >= 0).sum())
    labels = np.where(rest, len(weights), labels)
    return Groups(labels, [*names, NO_VECTOR], [*weights.tolist(), float(weights.sum() * share)])


def equal_clusters(signals: Signals, scores: Floats, options: ClusterOptions) -> Groups:
    """Rows compete inside their cluster; each cluster gets the same share, as far as it has the rows."""
    labels = signals.clusters(clustering_of(options)[0]).labels
    return _cluster_groups(labels, np.ones(len(_sizes(labels))), scores)


class CoincideOptions(ClusterOptions):
    """Options of COINCIDE's cluster weights."""

    temperature: float = Field(0.1, gt=0, description="tau: the larger, the more equal the clusters.")
    bandwidth: float = Field(1.0, gt=0, description="Width of the density's kernel, a distance of unit vectors.")


def coincide(signals: Signals, scores: Floats, options: CoincideOptions) -> Groups:
    """Clusters weighted by exp(S / (tau D)), whatever their size: transferable ones get more, dense ones less.

    S is the mean cosine of a cluster's centroid to the others, D its density, the mean Gaussian kernel
    exp(-d^2 / (2 bandwidth^2)) of two of its rows; a row alone is as dense as copies (COINCIDE, arXiv 2406.10995,
    eq. 1 to 4). Of a large cluster DENSITY_ROWS rows are compared, the first by id.
    """
    labels = signals.clusters(clustering_of(options)[0]).labels
    index, matrix = signals.vectors(options.space)
    order = np.argsort(labels, kind="stable")[(labels < 0).sum() :]
    members = np.split(order, np.cumsum(_sizes(labels)).astype(np.int64)[:-1])
    centroids = np.array([normalise_rows(matrix[index[rows]]).sum(axis=0, dtype=np.float64) for rows in members])
    centroids /= np.maximum(np.linalg.norm(centroids, axis=1, keepdims=True), 1e-12)
    transfer = (centroids @ centroids.sum(axis=0) - 1.0) / max(1, len(members) - 1)
    first = (normalise_rows(matrix[index[rows[:DENSITY_ROWS]]]) for rows in members)
    density = np.array([_density(unit, options.bandwidth) for unit in first])
    # What is behind these digits is rounding and must not decide a place.
    exponent = (transfer / np.maximum(density, 1e-12) / options.temperature).round(9)
    return _cluster_groups(labels, np.exp(exponent - exponent.max()), scores)


def _density(unit: NDArray[np.float32], bandwidth: float) -> float:
    n, data = len(unit), unit.astype(np.float64)
    if n < 2:
        return 1.0
    squared = np.maximum(0.0, 2.0 - 2.0 * (data @ data.T))
    np.fill_diagonal(squared, np.inf)
    return float(np.exp(-squared / (2.0 * bandwidth**2)).sum()) / (n * (n - 1))


class StrataOptions(Options):
    """Options of coverage-centric selection."""

    cut_off: float = Field(0.1, ge=0, lt=1, description="Share of the highest scores that is left out as too hard.")
    strata: int = Field(50, ge=1, description="Ranges of equal width that share the budget equally.")


def strata(signals: Signals, scores: Floats, options: StrataOptions) -> Groups:
    """Ranges of the score with equal shares, without the hardest rows (CCS, Zheng et al., arXiv 2210.15809)."""
    labels = np.full(len(scores), -1, np.int64)
    known = np.flatnonzero(np.isfinite(scores))
    order = known[np.lexsort((known, scores[known]))]
    # A share such as 0.29 of 100 rows is a little less than 29 in floating point.
    kept = order[: len(order) - int(round(options.cut_off * len(order), 6))]
    if len(kept):
        edges = np.linspace(scores[kept[0]], scores[kept[-1]], options.strata + 1)[1:-1]
        labels[kept] = np.searchsorted(edges, scores[kept], side="right")
    return Groups(labels, [f"stratum {i}" for i in range(options.strata)], [1.0] * options.strata)


QUOTAS = (
    Quota("none", one_group, "All rows compete with each other."),
    Quota("task", by_task, "Every task keeps its share of the rows."),
    Quota("equal_tasks", equal_tasks, "Every task gets the same share, as far as it has the rows."),
    Quota(
        "cluster",
        by_cluster,
        "Every cluster keeps its share of the rows.",
        clusterings=clustering_of,
        options=ClusterOptions,
    ),
    Quota(
        "equal_clusters",
        equal_clusters,
        "Every cluster gets the same share, as far as it has the rows.",
        clusterings=clustering_of,
        options=ClusterOptions,
    ),
    Quota(
        "coincide",
        coincide,
        "Clusters get more of the budget if they are near to the others and their rows unlike each other.",
        clusterings=clustering_of,
        options=CoincideOptions,
    ),
    Quota(
        "strata",
        strata,
        "Ranges of the score share the budget equally; the hardest rows are left out.",
        options=StrataOptions,
    ),
)
