"""Checks of PreSel's columns, and what a selection reports of rows and tasks."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from vsel_platform.errors import SelectionError
from vsel_platform.methods.presel_types import PreselRows
from vsel_platform.selection.result import SelectedRow, TaskBudget


def check_columns(rows: PreselRows, budget_rows: int) -> None:
    """Raise SelectionError for columns of different lengths, ids that occur twice, or a budget below 1."""
    columns = (rows.sample_ids, rows.tasks, rows.image_ids, rows.is_reference, rows.clusters, rows.typicality)
    lengths = [len(column) for column in columns]
    if len(set(lengths)) > 1:
        raise SelectionError(f"columns of PreselRows have the lengths {lengths}; align them")
    if len(set(rows.sample_ids)) != len(rows.sample_ids):
        repeated = [name for name, count in Counter(rows.sample_ids).items() if count > 1]
        raise SelectionError(f"{len(repeated)} sample ids occur more than once, for example {repeated[0]!r}")
    if budget_rows < 1:
        raise SelectionError(f"a budget of {budget_rows} rows selects nothing; give at least 1")


def order_by_id(rows: PreselRows) -> list[int]:
    """Positions of the rows in the order of their ids."""
    return sorted(range(len(rows.sample_ids)), key=rows.sample_ids.__getitem__)


def selected_row(rows: PreselRows, i: int, rank: int, reason: str) -> SelectedRow:
    """The row at position `i` as part of a selection; the score is its typicality if that decided."""
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


def report_tasks(
    rows: PreselRows,
    selected: Sequence[SelectedRow],
    weights: Mapping[str, float],
    budgets: Mapping[str, int],
    capacity: Mapping[str, int],
    difficulty: Mapping[str, float | None],
) -> list[TaskBudget]:
    """One line per task; text-only rows are counted under their own task."""
    reference = Counter(row.task for row in selected if row.reason == "reference")
    taken = Counter(row.task for row in selected if row.reason != "reference")
    texts = Counter(row.task for row in selected if row.stratum == "text")
    text_available = Counter(t for t, image in zip(rows.tasks, rows.image_ids, strict=True) if image is None)
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
