"""What reports show, read from the store file by file: memory does not grow with a table.

Samples are rows with the smallest identities. An identity is a sha256, so that is a uniform sample which depends
neither on the order of the rows nor on how they are cut into files.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vsel_platform.methods.presel import instruction_relevance
from vsel_platform.pipeline.context import Context
from vsel_platform.storage.pointers import Pointer

Floats = NDArray[np.float64]


def parts(ctx: Context, pointer: Pointer, columns: list[str]) -> Iterator[pa.Table]:
    """Columns of a published partition, one of its files (at most 100,000 rows) at a time."""
    for file in pointer.files:
        yield ctx.store.read(replace(pointer, files=[file]), columns)


def smallest(tables: Iterable[pa.Table], keys: list[str], k: int) -> pa.Table | None:
    """The `k` rows that come first in the order of `keys`, in that order; None if there is no table."""
    best: pa.Table | None = None
    order = [(key, "ascending") for key in keys]
    for table in tables:
        joined = table if best is None else pa.concat_tables([best, table])
        best = joined.take(pc.select_k_unstable(joined, k, order))
    return best


def add_counts(counts: dict[str, int], column: pa.ChunkedArray) -> None:
    """Add the number of occurrences of every value of `column` to `counts`."""
    for entry in pc.value_counts(column).to_pylist():
        counts[entry["values"]] = counts.get(entry["values"], 0) + entry["counts"]


@dataclass(frozen=True, slots=True)
class DatasetSummary:
    """A dataset in numbers [rows]: distinct contents, repeated ones, distinct contents by task."""

    n_distinct: int
    n_duplicates: int
    tasks: dict[str, int]


def dataset_summary(ctx: Context, dataset: str) -> DatasetSummary | None:
    """Summary of the published manifest of a dataset, None if there is none."""
    pointer = ctx.store.pointer("manifest", {"dataset": dataset})
    if pointer is None:
        return None
    tasks: dict[str, int] = {}
    rows = 0
    for table in parts(ctx, pointer, ["task", "is_duplicate"]):
        rows += table.num_rows
        add_counts(tasks, table.filter(pc.invert(table["is_duplicate"]))["task"])
    distinct = sum(tasks.values())
    return DatasetSummary(distinct, rows - distinct, tasks)


@dataclass(frozen=True, slots=True)
class QuarantineSummary:
    """Refused rows: how many, by reason, and the first ones in source order as `(position, reason, detail)`."""

    n_rows: int
    n_accepted: int
    reasons: dict[str, int]
    first: list[tuple[int, str, str]]


def quarantine_summary(ctx: Context, dataset: str, n_first: int) -> QuarantineSummary | None:
    """Summary of the published quarantine of a dataset, None if there is none."""
    pointer = ctx.store.pointer("quarantine", {"dataset": dataset})
    manifest = ctx.store.pointer("manifest", {"dataset": dataset})
    if pointer is None:
        return None
    reasons: dict[str, int] = {}
    for table in parts(ctx, pointer, ["reason"]):
        add_counts(reasons, table["reason"])
    names = ["position", "reason", "detail"]
    first = smallest(parts(ctx, pointer, names), ["position"], n_first)
    rows = [tuple(row[name] for name in names) for row in first.to_pylist()] if first is not None else []
    return QuarantineSummary(sum(reasons.values()), manifest.rows if manifest else 0, reasons, rows)


def relevance(losses: pa.Table) -> Floats:
    """Instruction relevance of rows of the `losses` table, in the order of their ids; NaN where there is none.

    Both conditions have the same answer tokens, so the ratio of the means is the ratio of the sums.
    """
    values: dict[str, dict[str, float | None]] = {}
    columns = (losses[name].to_pylist() for name in ("sample_id", "condition", "loss_mean"))
    for sample, condition, loss in zip(*columns, strict=True):
        values.setdefault(sample, {})[condition] = loss
    rows = [values[sample] for sample in sorted(values)]
    found = [instruction_relevance(row.get("full"), row.get("no_question")) for row in rows]
    return np.array([np.nan if value is None else value for value in found], dtype=np.float64)


def relevance_of_shard(ctx: Context, shard: str) -> dict[str, Floats]:
    """Instruction relevance of the reference rows in a shard, by dataset, under its present reference model."""
    from vsel_platform.pipeline import losses

    found = {}
    for dataset in losses.datasets_of(ctx, shard):
        pointer = ctx.store.pointer("losses", losses.partition(ctx, dataset, shard))
        if pointer is not None:
            found[dataset] = relevance(ctx.store.read(pointer, ["sample_id", "condition", "loss_mean"]))
    return found


def visual_gain_of_shard(ctx: Context, shard: str) -> Floats:
    """Loss without minus loss with the image, of the rows of a shard that have both, under the base model."""
    from vsel_platform.pipeline import base_losses

    pointer = ctx.store.pointer("losses", base_losses.partition(ctx, shard))
    if pointer is None:
        return np.empty(0)
    table = ctx.store.read(pointer, ["sample_id", "condition", "loss_mean"])
    means = {}
    for condition in ("full", "no_image"):
        part = table.filter(pc.equal(table["condition"], condition))
        means[condition] = dict(zip(part["sample_id"].to_pylist(), part["loss_mean"].to_pylist(), strict=True))
    pairs = [(means["full"].get(i), blind) for i, blind in sorted(means["no_image"].items())]
    return np.array([blind - full for full, blind in pairs if full is not None and blind is not None], np.float64)


@dataclass(frozen=True, slots=True)
class TaskReference:
    """Reference subset of a task: its rows, the distinct images that they show, and all distinct rows of the task."""

    task: str
    n_reference: int
    n_images: int
    n_rows: int


def reference_tasks(ctx: Context, dataset: str) -> list[TaskReference]:
    """The reference subset of a dataset by task, tasks without a reference row included; empty if there is none."""
    pointer = ctx.store.pointer("reference_subset", {"dataset": dataset})
    summary = dataset_summary(ctx, dataset)
    if pointer is None or summary is None:
        return []
    rows: dict[str, int] = {}
    images: dict[str, set[str]] = {}
    for table in parts(ctx, pointer, ["task", "image_id"]):
        add_counts(rows, table["task"])
        for task, image in zip(table["task"].to_pylist(), table["image_id"].to_pylist(), strict=True):
            images.setdefault(task, set()).add(image)
    return [
        TaskReference(task, rows.get(task, 0), len(images.get(task, ())), total)
        for task, total in sorted(summary.tasks.items())
    ]


def scores_pointer(ctx: Context, dataset: str, mode: str, table: str = "presel_scores") -> Pointer | None:
    """Published PreSel scores (or `presel_tasks`) of a dataset."""
    return ctx.store.pointer(table, {"dataset": dataset, "mode": mode})


def column_values(
    ctx: Context, scores: Pointer, column: str, selected: pa.Array | None = None
) -> tuple[Floats, Floats]:
    """A column of all scored rows, and of those among them whose id is in `selected` (8 bytes a row)."""
    everything: list[Floats] = [np.empty(0)]
    chosen: list[Floats] = [np.empty(0)]
    names = ["sample_id", column] if selected is not None else [column]
    for table in parts(ctx, scores, names):
        known = table.filter(pc.is_valid(table[column]))
        everything.append(known[column].to_numpy())
        if selected is not None:
            chosen.append(known.filter(pc.is_in(known["sample_id"], selected))[column].to_numpy())
    return np.concatenate(everything), np.concatenate(chosen)


@dataclass(frozen=True, slots=True)
class TaskDifficulty:
    """A row of `presel_tasks`: difficulty, and how many reference rows of the task have a relevance.

    `is_measured`: the difficulty is their mean. With too few of them it is the mean of the other tasks.
    """

    task: str
    difficulty: float | None
    n_relevance: int
    is_measured: bool


def task_difficulty(ctx: Context, dataset: str, mode: str) -> list[TaskDifficulty]:
    """Published task difficulties of a dataset; empty if there are none."""
    from vsel_platform.pipeline.scores import dataset_options

    pointer = scores_pointer(ctx, dataset, mode, "presel_tasks")
    if pointer is None:
        return []
    enough = dataset_options(ctx, dataset).min_reference_rows
    rows: list[dict[str, Any]] = ctx.store.read(pointer, ["task", "difficulty", "n_relevance"]).to_pylist()
    return [TaskDifficulty(r["task"], r["difficulty"], r["n_relevance"], r["n_relevance"] >= enough) for r in rows]
