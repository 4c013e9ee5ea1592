"""Quotas: in which groups rows compete, and what share of the budget each group gets."""

import numpy as np
from pydantic import Field

from vsel_platform.methods.api import Floats, Groups, Options, Quota, Signals
from vsel_platform.methods.geometry_scores import ClusterOptions, clustering_of
from vsel_platform.selection.diversity import normalise_rows


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
    sizes = np.bincount(labels[labels >= 0], minlength=1)
    return Groups(labels, [f"cluster {i}" for i in range(len(sizes))], sizes.astype(float).tolist())


def equal_clusters(signals: Signals, scores: Floats, options: ClusterOptions) -> Groups:
    """Rows compete inside their cluster; each cluster gets the same share, as far as it has the rows."""
    groups = by_cluster(signals, scores, options)
    return Groups(groups.labels, groups.names, [1.0] * len(groups.names))


class CoincideOptions(ClusterOptions):
    """Options of COINCIDE's cluster weights."""

    temperature: float = Field(0.1, gt=0, description="tau: the larger, the more equal the clusters.")


def coincide(signals: Signals, scores: Floats, options: CoincideOptions) -> Groups:
    """Clusters weighted by exp(S / (tau D)): transferable and dense ones less diverse inside get more of the budget.

    S is the mean cosine of a cluster's centroid to the others, D the mean distance 1 - cosine of pairs inside it
    (COINCIDE, arXiv 2406.10995, eq. 1 to 4). With unit vectors D follows from the length of the cluster's sum. S and
    D are scaled to mean 1 over the clusters, so that tau means the same in every space.
    """
    groups = by_cluster(signals, scores, options)
    index, matrix = signals.vectors(options.space)
    unit = normalise_rows(matrix).astype(np.float64)
    count = len(groups.names)
    known = groups.labels >= 0
    sums = np.zeros((count, unit.shape[1]))
    np.add.at(sums, groups.labels[known], unit[index[known]])
    sizes = np.bincount(groups.labels[known], minlength=count).astype(np.float64)
    pairs = np.maximum(sizes * (sizes - 1), 1)
    inside = 1.0 - (np.einsum("ij,ij->i", sums, sums) - sizes) / pairs
    inside = np.where(sizes > 1, np.maximum(inside, 0), 0)
    centroids = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    transfer = (centroids @ centroids.sum(axis=0) - 1.0) / max(1, count - 1)
    exponent = _to_mean_one(np.maximum(transfer, 0)) / np.maximum(_to_mean_one(inside), 1e-3) * options.temperature
    exponent = np.minimum(exponent, np.quantile(exponent, 0.99))
    weights = sizes * np.exp(exponent - exponent.max())
    return Groups(groups.labels, groups.names, weights.round(12).tolist())


def _to_mean_one(values: Floats) -> Floats:
    mean = float(values.mean())
    return values / mean if mean > 0 else np.ones_like(values)


class StrataOptions(Options):
    """Options of coverage-centric selection."""

    cut_off: float = Field(0.1, ge=0, lt=1, description="Share of the highest scores that is left out as too hard.")
    strata: int = Field(50, ge=1, description="Ranges of equal width that share the budget equally.")


def strata(signals: Signals, scores: Floats, options: StrataOptions) -> Groups:
    """Ranges of the score with equal shares, without the hardest rows (CCS, Zheng et al., arXiv 2210.15809)."""
    labels = np.full(len(scores), -1, np.int64)
    known = np.flatnonzero(np.isfinite(scores))
    order = known[np.lexsort((known, scores[known]))]
    kept = order[: len(order) - int(options.cut_off * len(order))]
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
        "Transferable clusters get more of the budget, by how alike their rows are.",
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
