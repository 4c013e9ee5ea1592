"""PreSel (arXiv 2503.07591), corrected default: task importance, clusters, typicality, budgets.

A low instruction relevance (loss with / loss without the question) means that the question helps a lot: the task is
important and gets more budget. Inside a task, images are clustered and the most typical ones are taken.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from vsel_platform.selection.budgets import largest_remainder, softmax_weights, water_filling
from vsel_platform.selection.diversity import Vectors, fit_kmeans, normalise_rows, typicality
from vsel_platform.selection.result import SelectedRow, SelectionResult, TaskBudget
from vsel_platform.selection.stable_hash import stable_uniform

IMPORTANCE_DECIMALS = 6


class PreselOptions(BaseModel):
    """Options of PreSel; the defaults are the paper's where it has one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n_neighbours: int = Field(5, ge=1, description="Neighbours that typicality is the mean over.")
    cluster_fraction: float = Field(0.01, gt=0, le=1, description="Clusters per image of a task.")
    temperature: float = Field(0.0, ge=0, description="Softmax temperature; 0 = sqrt(1 / number of tasks).")
    min_reference_rows: int = Field(
        3, ge=1, description="A task with fewer finite relevances gets the mean difficulty of the other tasks."
    )
    unit: Literal["row", "image"] = Field("row", description="Select rows, or images with all their rows.")
    text_policy: Literal["proportional", "none", "all"] = Field(
        "proportional", description="Text-only rows: their share of the budget, none, or all of them."
    )


@dataclass(frozen=True, slots=True)
class PreselRows:
    """Aligned columns, one entry per distinct row; NaN and -1 stand for missing."""

    sample_ids: Sequence[str]
    tasks: Sequence[str]
    image_ids: Sequence[str | None]
    is_reference: NDArray[np.bool_]
    clusters: NDArray[np.int32]
    typicality: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TaskScore:
    """Difficulty (mean instruction relevance) of a task, and how many finite relevances are behind it."""

    difficulty: float | None
    n_relevance: int


@dataclass(frozen=True, slots=True)
class ImageScores:
    """Cluster and typicality of images, by image id."""

    clusters: dict[str, int] = field(default_factory=dict)
    typicality: dict[str, float] = field(default_factory=dict)


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
    """Difficulty of every task from the finite relevances of its reference rows.

    A task with fewer than `min_reference_rows` gets the mean of the others, None if there are no others. Values are
    rounded to six decimals: the noise that batch composition leaves in float losses must not move quotas.
    """
    found: dict[str, list[float]] = {task: [] for task in sorted(set(tasks.values()))}
    for sample in sorted(relevance):
        value = relevance[sample]
        if value is not None:
            found[tasks[sample]].append(value)
    enough = {t: math.fsum(v) / len(v) for t, v in found.items() if len(v) >= options.min_reference_rows}
    fallback = round(math.fsum(enough.values()) / len(enough), IMPORTANCE_DECIMALS) if enough else None
    return {
        task: TaskScore(round(enough[task], IMPORTANCE_DECIMALS) if task in enough else fallback, len(values))
        for task, values in found.items()
    }


def score_images(
    image_ids: Sequence[str], vectors: Vectors, reference: set[str], options: PreselOptions, *, seed: int
) -> ImageScores:
    """Clusters and typicality of the distinct images of ONE task, given float32 vectors [n, d].

    Typicality is over the images of the same cluster that are not reference images, as in PreSel; each image
    content is one point, so duplicates do not vouch for each other.
    """
    order = np.argsort(np.asarray(image_ids), kind="stable")
    names = [image_ids[i] for i in order]
    data = normalise_rows(vectors[order])
    n_clusters = max(1, int(options.cluster_fraction * len(names)))
    labels = fit_kmeans(data, n_clusters, seed=seed).labels
    scores = ImageScores({name: int(label) for name, label in zip(names, labels, strict=True)})
    available = np.array([name not in reference for name in names], np.bool_)
    for label in range(n_clusters):
        members = np.flatnonzero((labels == label) & available)
        for index, value in zip(members, typicality(data[members], options.n_neighbours), strict=True):
            scores.typicality[names[index]] = float(value)
    return scores


def presel_select(
    rows: PreselRows, budget_rows: int, difficulty: Mapping[str, float | None], options: PreselOptions, *, seed: int
) -> SelectionResult:
    """Select `budget_rows` rows, reference rows included (they have instructions and are trained on anyway).

    What is left of the budget after the text-only stratum and the reference rows is split over the tasks by
    softmax(-difficulty / T) with water-filling, over the clusters of a task by largest remainder of their available
    rows, and inside a cluster by typicality. If the reference rows alone exceed the budget, a stable draw of them
    is kept. No rows are drawn at random; a shortfall is reported.
    """
    order = sorted(range(len(rows.sample_ids)), key=lambda i: rows.sample_ids[i])
    text = [i for i in order if rows.image_ids[i] is None]
    text_rows = _text_stratum(rows, text, len(order), budget_rows, options, seed)
    reference = [i for i in order if rows.is_reference[i] and rows.image_ids[i] is not None]
    uniform = dict(zip(reference, stable_uniform(seed, [rows.sample_ids[i] for i in reference]), strict=True))
    room = max(0, budget_rows - len(text_rows))
    kept = sorted(reference, key=lambda i: (uniform[i], rows.sample_ids[i]))[:room]
    by_task: dict[str, list[int]] = defaultdict(list)
    for i in order:
        if rows.image_ids[i] is not None and not rows.is_reference[i]:
            by_task[rows.tasks[i]].append(i)
    weights = _weights(sorted(by_task), difficulty, options)
    capacity = {task: len(members) for task, members in by_task.items()}
    budgets = water_filling(weights, capacity, room - len(kept))
    picked: list[tuple[float, str, int]] = []
    for task in sorted(by_task):
        chosen = _select_task(rows, by_task[task], budgets[task], options)
        picked += [((place + 0.5) / max(len(chosen), 1), rows.sample_ids[i], i) for place, i in enumerate(chosen)]
    ordered = [*((i, "reference") for i in kept), *((i, "typical") for _, _, i in sorted(picked))]
    ordered += [(i, "text") for i in text_rows]
    result = [_row(rows, i, rank, reason) for rank, (i, reason) in enumerate(ordered, start=1)]
    report = _report(rows, result, weights, budgets, capacity, difficulty)
    return SelectionResult(result, report, shortfall=budget_rows - len(result))


def _weights(tasks: list[str], difficulty: Mapping[str, float | None], options: PreselOptions) -> dict[str, float]:
    """Softmax weights; tasks without a difficulty get the mean of the known ones (equal weights if none is known)."""
    known = [value for task in tasks if (value := difficulty.get(task)) is not None]
    mean = math.fsum(known) / len(known) if known else 0.0
    if not tasks:
        return {}
    values = [mean if (value := difficulty.get(task)) is None else value for task in tasks]
    temperature = options.temperature or math.sqrt(1 / len(tasks))
    return dict(zip(tasks, softmax_weights(values, temperature).tolist(), strict=True))


def _text_stratum(
    rows: PreselRows, text: list[int], n_rows: int, budget: int, options: PreselOptions, seed: int
) -> list[int]:
    """Text-only rows to take: by policy, drawn by stable hash."""
    if options.text_policy == "none" or not text:
        return []
    count = len(text) if options.text_policy == "all" else largest_remainder([len(text), n_rows - len(text)], budget)[0]
    uniform = dict(zip(text, stable_uniform(seed, [rows.sample_ids[i] for i in text]), strict=True))
    return sorted(text, key=lambda i: (uniform[i], rows.sample_ids[i]))[: min(count, budget)]


def _select_task(rows: PreselRows, members: list[int], budget: int, options: PreselOptions) -> list[int]:
    """Rows of one task in the order in which clusters take turns, most typical first."""
    if budget <= 0:
        return []
    by_cluster: dict[int, list[int]] = defaultdict(list)
    for i in members:
        by_cluster[int(rows.clusters[i])].append(i)
    sizes = {f"{label:09d}": len(found) for label, found in by_cluster.items()}
    quotas = water_filling({key: float(size) for key, size in sizes.items()}, sizes, budget)
    chosen: list[tuple[float, int, int]] = []
    for label in sorted(by_cluster):
        ranked = rank_by_typicality(rows, by_cluster[label], by_image=options.unit == "image")
        quota = quotas[f"{label:09d}"]
        chosen += [((place + 0.5) / quota, label, i) for place, i in enumerate(ranked[:quota])]
    return [i for _, _, i in sorted(chosen, key=lambda c: (c[0], c[1], rows.sample_ids[c[2]]))]


def rank_by_typicality(rows: PreselRows, members: list[int], *, by_image: bool) -> list[int]:
    """Members by falling typicality; missing ones last; ties by image, then by row.

    By row (default) the first row of every image comes before the second row of any, so that rows of one image do
    not crowd out other images; by image all rows of an image stay together.
    """
    turn: dict[int, int] = {}
    seen: dict[str, int] = defaultdict(int)
    for i in sorted(members, key=lambda i: rows.sample_ids[i]):
        turn[i] = 0 if by_image else seen[rows.image_ids[i] or ""]
        seen[rows.image_ids[i] or ""] += 1

    def key(i: int) -> tuple[bool, int, float, str, str]:
        value = float(rows.typicality[i])
        missing = not math.isfinite(value)
        return missing, turn[i], 0.0 if missing else -value, rows.image_ids[i] or "", rows.sample_ids[i]

    return sorted(members, key=key)


def _row(rows: PreselRows, i: int, rank: int, reason: str) -> SelectedRow:
    value = float(rows.typicality[i])
    cluster = int(rows.clusters[i])
    return SelectedRow(
        rows.sample_ids[i],
        rank,
        rows.tasks[i],
        "text" if rows.image_ids[i] is None else "image",
        reason,
        value if math.isfinite(value) and reason == "typical" else None,
        cluster if cluster >= 0 else None,
    )


def _report(
    rows: PreselRows,
    selected: list[SelectedRow],
    weights: Mapping[str, float],
    budgets: Mapping[str, int],
    capacity: Mapping[str, int],
    difficulty: Mapping[str, float | None],
) -> list[TaskBudget]:
    """One line per task; text-only rows are counted under their own task."""
    taken: dict[str, int] = defaultdict(int)
    texts: dict[str, int] = defaultdict(int)
    reference: dict[str, int] = defaultdict(int)
    for row in selected:
        (reference if row.reason == "reference" else taken)[row.task] += 1
        texts[row.task] += row.stratum == "text"
    text_available: dict[str, int] = defaultdict(int)
    for task, image in zip(rows.tasks, rows.image_ids, strict=True):
        text_available[task] += image is None
    return [
        TaskBudget(
            task,
            capacity.get(task, 0) + text_available[task],
            reference[task],
            difficulty.get(task),
            weights.get(task, 0.0),
            budgets.get(task, 0) + texts[task],
            taken[task],
        )
        for task in sorted(set(rows.tasks))
    ]
