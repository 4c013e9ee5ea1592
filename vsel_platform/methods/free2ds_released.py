"""Free2DS as released: clustering score, joint score and random draw.

Specification: C1.6 and C1.7 of commit 9b9afe0 of the released code. Kept for comparison; `free2ds` is the default.
"""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from vsel_platform.errors import SelectionError

Vectors = NDArray[np.float32]
Floats = NDArray[np.float64]


class ReleasedFilterOptions(BaseModel):
    """Flags of the released filter script, with its defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    alpha: float = Field(0.5, ge=0, le=1, description="Weight of the text score: 0 = image score only.")
    temperature: float = Field(1.0, gt=0, description="Temperature of the softmax that rows are drawn by.")
    filter_ratio: float = Field(0.2, ge=0, le=1, description="Share of the rows to draw.")
    num_samples: int | None = Field(None, description="Rows to draw; None and 0 fall back to filter_ratio.")
    seed: int = Field(42, description="Seed of numpy's RandomState.")


@dataclass(frozen=True, slots=True)
class JointScores:
    """Columns float64 [n]: scaled and inverted image and text score, and their weighted sum."""

    iou: Floats
    text: Floats
    combined: Floats


@dataclass(frozen=True, slots=True)
class ReleasedFilter:
    """What the released script writes: ids in the order drawn, scores by str(id), entries in data order, counts."""

    selected_sample_ids: list[Any]
    sample_scores: dict[str, dict[str, Any]]
    filtered_data: list[dict[str, Any]]
    filter_stats: dict[str, Any]


def released_centroids(vectors: Vectors, n_clusters: int = 1000, *, n_iterations: int = 100, seed: int = 42) -> Vectors:
    """Centroids float32 [n_clusters, d] of text vectors [n, d] by faiss.Kmeans with the released settings.

    Euclidean, random rows as the start, one run, trained on at most 256 rows per centroid (a seeded subsample).
    Raises SelectionError for fewer rows than clusters.
    """
    import faiss

    data = np.ascontiguousarray(vectors, np.float32)
    if len(data) < n_clusters:
        raise SelectionError(f"{len(data)} text vectors cannot make {n_clusters} clusters; ask for fewer")
    kmeans = faiss.Kmeans(data.shape[1], n_clusters, niter=n_iterations, seed=seed, spherical=False, gpu=False)
    kmeans.train(data)
    return np.asarray(kmeans.centroids, np.float32)


def assign_to_centroids(vectors: Vectors, centroids: Vectors) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Nearest centroid int64 [n] and SQUARED L2 distance to it float32 [n] of vectors [n, d].

    The released script takes whatever centroids lie in its folder, also those of other data: the centroids are an
    argument here. Raises SelectionError if they have another dimension.
    """
    import faiss

    if vectors.shape[1] != centroids.shape[1]:
        raise SelectionError(
            f"vectors of {vectors.shape[1]} and centroids of {centroids.shape[1]} numbers; train centroids on these "
            "vectors"
        )
    index = faiss.IndexFlatL2(centroids.shape[1])
    index.add(np.ascontiguousarray(centroids, np.float32))
    distances, labels = index.search(np.ascontiguousarray(vectors, np.float32), 1)
    return labels[:, 0].astype(np.int64), distances[:, 0]


def released_text_scores(distances: NDArray[np.float32], unique_ids: Sequence[Hashable]) -> dict[Any, float]:
    """Mean of 1 - D / max(D) over the turns of each id, in order of first appearance.

    `distances` [n] and `unique_ids` [n] belong to the turns. D is scaled by its global maximum, so a single
    outlier moves every score; if all distances are 0 every score is NaN, as released.
    """
    if not len(distances):
        return {}
    with np.errstate(invalid="ignore"):
        similarity = 1.0 - distances / distances.max()
    found: dict[Any, list[float]] = defaultdict(list)
    for name, value in zip(unique_ids, similarity.tolist(), strict=True):
        found[name].append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}


def released_joint_scores(iou: Floats, text: Floats, alpha: float) -> JointScores:
    """Inverted min-max of both columns (NaN = missing), and (1 - alpha) x image + alpha x text.

    A missing value counts as 0 and, inverted, is the best there is. A constant column is 0 for all.
    """
    image, words = (_inverted_min_max(np.nan_to_num(column, nan=0.0)) for column in (iou, text))
    return JointScores(image, words, (1 - alpha) * image + alpha * words)


def _inverted_min_max(values: Floats) -> Floats:
    low, high = values.min(), values.max()
    return 1 - (values - low) / (high - low) if high > low else np.zeros_like(values)


def released_draw(combined: Floats, count: int, *, temperature: float, seed: int) -> NDArray[np.int64]:
    """`count` positions drawn without replacement with the weights softmax(combined / temperature), in draw order.

    Raises SelectionError if the temperature is so low that fewer rows have any weight.
    """
    scaled = combined / temperature
    weights = np.exp(scaled - scaled.max())
    weights /= weights.sum()
    possible = np.count_nonzero(weights)
    if possible < count:
        raise SelectionError(
            f"at temperature {temperature} only {possible} rows have a weight above 0, and {count} are to be drawn; "
            "raise the temperature or use policy top_k"
        )
    draw = np.random.RandomState(seed)
    positions = draw.choice(len(combined), size=count, replace=False, p=weights / weights.sum())
    return np.asarray(positions, np.int64)


def released_filter(
    entries: Sequence[dict[str, Any]],
    ious: Mapping[Any, float],
    text_scores: Mapping[str, float],
    options: ReleasedFilterOptions,
    *,
    input_file: str,
) -> ReleasedFilter:
    """The released filter: scores of all entries with a `unique_id`, a draw, and the files it writes.

    `ious` by unique_id, `text_scores` by str(unique_id). Raises SelectionError if no entry has a unique_id.
    """
    ids = [entry["unique_id"] for entry in entries if "unique_id" in entry]
    if not ids:
        raise SelectionError(f"{input_file}: no entry has a unique_id; add ids first")
    iou = np.array([ious.get(i, np.nan) for i in ids], np.float64)
    text = np.array([text_scores.get(str(i), np.nan) for i in ids], np.float64)
    scores = released_joint_scores(iou, text, options.alpha)
    exact = options.num_samples is not None and options.num_samples > 0
    count = min(options.num_samples or 0, len(ids)) if exact else int(len(ids) * options.filter_ratio)
    drawn = released_draw(scores.combined, count, temperature=options.temperature, seed=options.seed)
    selected = [ids[i] for i in drawn]
    chosen = set(selected)
    filtered = [entry for entry in entries if entry.get("unique_id") in chosen]
    with_iou = sum(i in ious for i in selected)
    stats = {
        "total_samples": len(ids),
        "selected_samples": len(selected),
        "selected_with_iou": with_iou,
        "selected_without_iou": len(selected) - with_iou,
        "filter_ratio": options.filter_ratio if options.num_samples is None else count / len(ids),
        "num_samples_requested": options.num_samples,
        "input_file": input_file,
        "total_filtered_samples": len(filtered),
        "alpha": options.alpha,
    }
    return ReleasedFilter(selected, _score_rows(ids, iou, text, scores), filtered, stats)


def _score_rows(ids: Sequence[Any], iou: Floats, text: Floats, scores: JointScores) -> dict[str, dict[str, Any]]:
    columns = (np.nan_to_num(iou, nan=0.0), scores.iou, np.nan_to_num(text, nan=0.0), scores.text, scores.combined)
    names = ("iou", "iou_normalized", "bert", "bert_normalized", "combined")
    rows = zip(ids, (~np.isnan(iou)).tolist(), *(column.tolist() for column in columns), strict=True)
    return {
        str(name): dict(zip(names, values, strict=True)) | {"has_iou_score": present} for name, present, *values in rows
    }
