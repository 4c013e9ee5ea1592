"""PreSel's scores: how important a task is, and how typical an image is of its cluster."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from vsel_platform.errors import SelectionError
from vsel_platform.methods.presel_types import ImageScores, Mode, PreselOptions, TaskScore
from vsel_platform.selection.diversity import (
    Labels,
    Vectors,
    cluster_typicality,
    fit_kmeans,
    normalise_rows,
)

# Batch composition leaves noise of about 1e-7 in float32 losses and cosines; it must not decide quotas or ranks.
DECIMALS = 6
RELEASED_SEED = 12345


def instruction_relevance(loss_full: float | None, loss_no_question: float | None) -> float | None:
    """Instruction relevance loss(R|Q,I) / loss(R|I); None if a loss is missing, not finite, or not positive."""
    if loss_full is None or loss_no_question is None:
        return None
    if not (math.isfinite(loss_full) and math.isfinite(loss_no_question)) or loss_no_question <= 0:
        return None
    return loss_full / loss_no_question


def task_importance(
    relevance: Mapping[str, float | None], tasks: Mapping[str, str], options: PreselOptions
) -> dict[str, TaskScore]:
    """Difficulty of every task from the finite relevances of its reference rows; both mappings are by sample id.

    A task with fewer than `min_reference_rows` gets the mean of the others, None if there are no others. Values are
    rounded to six decimals.
    """
    found: dict[str, list[float]] = {task: [] for task in sorted(set(tasks.values()))}
    for sample in sorted(relevance):
        value = relevance[sample]
        if value is not None and math.isfinite(value):
            found[tasks[sample]].append(value)
    enough = {t: math.fsum(v) / len(v) for t, v in found.items() if len(v) >= options.min_reference_rows}
    fallback = round(math.fsum(enough.values()) / len(enough), DECIMALS) if enough else None
    return {
        task: TaskScore(round(enough[task], DECIMALS) if task in enough else fallback, len(values))
        for task, values in found.items()
    }


def score_images(
    image_ids: Sequence[str],
    vectors: Vectors,
    reference: set[str],
    options: PreselOptions,
    *,
    seed: int,
    mode: Mode = "default",
) -> ImageScores:
    """Clusters and typicality of the distinct images of ONE task, given float32 vectors [n, d].

    Typicality is over the images of the same cluster that are not reference images, as in PreSel; each image
    content is one point, so duplicates do not vouch for each other. An image without any other one in its cluster
    resembles none: its typicality is 0. Vectors that are not finite get no score.

    Mode `released` takes one point per ROW (pass row ids), clusters with scikit-learn's k-means and its seed 12345,
    and gives an image that is alone NaN. Raises SelectionError if no vector is finite.
    """
    order = _finite_by_id(image_ids, vectors)
    if not order:
        raise SelectionError("no image of the task has a finite embedding; see the table signal_failures")
    names = [image_ids[i] for i in order]
    data = normalise_rows(vectors if order == list(range(len(vectors))) else vectors[order])
    n_clusters = max(1, int(options.cluster_fraction * len(names)))
    labels = released_labels(data, n_clusters) if mode == "released" else fit_kmeans(data, n_clusters, seed=seed).labels
    drawn = np.array([name in reference for name in names], np.bool_)
    values = cluster_typicality(data, np.where(drawn, -1, labels), options.n_neighbours)
    if mode == "default":
        values = np.nan_to_num(values, nan=0.0).round(DECIMALS)
    typicality = dict(zip(names, values.tolist(), strict=True))
    return ImageScores(
        dict(zip(names, labels.tolist(), strict=True)),
        {name: value for name, value in typicality.items() if name not in reference},
    )


def _finite_by_id(ids: Sequence[str], vectors: Vectors) -> list[int]:
    """Positions of the rows without NaN and infinity, in the order of their ids."""
    finite = np.isfinite(vectors.sum(axis=1)).tolist()
    return sorted((i for i in range(len(ids)) if finite[i]), key=ids.__getitem__)


def released_labels(data: Vectors, n_clusters: int) -> Labels:
    """Clusters of the released code: sklearn KMeans, everything default but the seed; int32 [n]."""
    from sklearn.cluster import KMeans

    return np.asarray(KMeans(n_clusters=n_clusters, random_state=RELEASED_SEED).fit_predict(data), np.int32)
