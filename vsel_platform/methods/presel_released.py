"""PreSel as released: task difficulties, budgets per round, assembly with a random top-up.

Specification: commit 2dd6709 of the released code. Kept for comparison; its quirks are described at each function.
"""

import math
import random
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsel_platform.errors import SelectionError
from vsel_platform.methods.presel_report import order_by_id, report_tasks, selected_row
from vsel_platform.methods.presel_tasks import select_task
from vsel_platform.methods.presel_types import PreselOptions, PreselRows
from vsel_platform.selection.budgets import (
    released_llava_budgets,
    released_vision_flan_budgets,
    softmax_weights,
)
from vsel_platform.selection.diversity import Labels, Vectors, cluster_typicality
from vsel_platform.selection.result import SelectionResult

PERCENT_PER_ROUND = 5


def released_relevance(
    losses_with: Sequence[Mapping[str, Any]], losses_without: Sequence[Mapping[str, Any]]
) -> list[tuple[int, float]]:
    """(unique_idx, loss with / loss without question) in the order of `losses_with`, entries `{unique_idx, loss}`.

    Of several entries without question the last counts, with question all count; a row that lacks one is dropped.
    NaN losses give NaN. Raises ZeroDivisionError for a loss of zero without question.
    """
    without = {entry["unique_idx"]: entry["loss"] for entry in losses_without}
    return [(e["unique_idx"], e["loss"] / without[e["unique_idx"]]) for e in losses_with if e["unique_idx"] in without]


def released_task_difficulties(
    relevance: Sequence[tuple[int, float]], reference: Collection[int], tasks: Sequence[Collection[int]]
) -> list[tuple[float, int]]:
    """(mean relevance, number of relevances) of each task over its reference rows; NaN for a task without any.

    A row that is in several tasks counts in each.
    """
    drawn = set(reference)
    kept = [(row, value) for row, value in relevance if row in drawn]
    members = [set(task) for task in tasks]
    values = [[value for row, value in kept if row in task] for task in members]
    return [(float(np.mean(found)) if found else math.nan, len(found)) for found in values]


def rows_of_round(n_rows: int, round_number: int) -> int:
    """New rows of a round: 5 % of all rows (reference included) for every round after the first."""
    return (round_number - 1) * max(1, int(n_rows * PERCENT_PER_ROUND / 100))


def released_typicality(
    vectors: Vectors, labels: Labels, is_reference: NDArray[np.bool_], n_neighbours: int = 5
) -> NDArray[np.float64]:
    """Typicality of the available rows among those of their cluster, float64 [n]; NaN for reference rows.

    `vectors` float32 [n, d] are normalised. A row that is alone has NaN and is still taken if its cluster's count
    says so; duplicates count as neighbours of each other.
    """
    return cluster_typicality(vectors, np.where(is_reference, -1, labels), n_neighbours)


def released_rounds(
    dataset: Sequence[int],
    reference: Sequence[int],
    selected: Sequence[Sequence[int]],
    wanted: Sequence[int],
    *,
    seed: int = 12345,
) -> list[list[int]]:
    """Training list of each round: the reference in its order, then what was selected in dataset order.

    A round with fewer than `wanted` selected rows is topped up at random from the whole dataset, whatever the task;
    the random state carries over from round to round.
    """
    draw = random.Random(seed)  # noqa: S311 - the released code's generator, not a secret
    drawn = set(reference)
    outside = [row for row in dataset if row not in drawn]
    rounds = []
    for found, size in zip(selected, wanted, strict=True):
        chosen = set(found)
        if len(found) < size:
            remaining = [row for row in outside if row not in chosen]
            chosen.update(draw.sample(remaining, min(size - len(found), len(remaining))))
        rounds.append([*reference, *(row for row in dataset if row in chosen)])
    return rounds


def released_select(
    rows: PreselRows,
    budget_rows: int,
    difficulty: Mapping[str, float | None],
    options: PreselOptions,
    *,
    seed: int,
) -> SelectionResult:
    """The released selection of one round: reference rows, typical rows of every task, random top-up.

    Rows are taken in the order of their ids, which stands for the order of the released data file; text-only rows
    are left out, as the released code demands. Raises SelectionError if a task has no difficulty (the released code
    then fails with undefined budgets), if the budget is smaller than the reference, or for a unit other than row.
    """
    order = [i for i in order_by_id(rows) if rows.image_ids[i] is not None]
    reference = [i for i in order if rows.is_reference[i]]
    wanted = budget_rows - len(reference)
    if wanted < 0 or options.unit != "row":
        raise SelectionError(
            f"mode released: unit must be row (is {options.unit}) and the budget of {budget_rows} rows at least the "
            f"{len(reference)} reference rows"
        )
    by_task: dict[str, list[int]] = defaultdict(list)
    for i in order:
        by_task[rows.tasks[i]].append(i)
    known = _known_difficulties(sorted(by_task), difficulty)
    budgets = _budgets(known, {task: len(members) for task, members in by_task.items()}, wanted, options)
    typical = [i for t in known for i in select_task(rows, by_task[t], budgets[t], options, mode="released")]
    final = released_rounds(order, reference, [typical], [wanted], seed=seed)[0][len(reference) :]
    chosen = set(typical)
    ordered = [(i, "reference") for i in reference]
    ordered += [(i, "typical" if i in chosen else "top-up") for i in final]
    result = [selected_row(rows, i, rank, reason) for rank, (i, reason) in enumerate(ordered, start=1)]
    free = {task: sum(not rows.is_reference[i] for i in members) for task, members in by_task.items()}
    weights = dict(zip(known, softmax_weights(list(known.values()), 1 / math.sqrt(len(known))).tolist(), strict=True))
    note = f"{len(final) - len(typical)} rows were drawn at random from all tasks to fill the budget"
    return SelectionResult(
        result, report_tasks(rows, result, weights, budgets, free, difficulty), budget_rows - len(result), [note]
    )


def _known_difficulties(tasks: Sequence[str], difficulty: Mapping[str, float | None]) -> dict[str, float]:
    known = {task: value for task in tasks if (value := difficulty.get(task)) is not None and math.isfinite(value)}
    missing = [task for task in tasks if task not in known]
    if missing or not known:
        raise SelectionError(f"mode released: tasks without a difficulty: {', '.join(missing) or 'no task at all'}")
    return known


def _budgets(
    known: Mapping[str, float], sizes: Mapping[str, int], wanted: int, options: PreselOptions
) -> dict[str, int]:
    if options.released_budgets == "vision_flan":
        return released_vision_flan_budgets(known, sizes, wanted, 1 / math.sqrt(len(known)))
    return dict(zip(known, released_llava_budgets(list(known.values()), wanted), strict=True))
