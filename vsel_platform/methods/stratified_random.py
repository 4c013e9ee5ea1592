"""Stratified random selection: every task keeps its share, rows are drawn by a stable hash."""

from collections import defaultdict
from collections.abc import Sequence

from vsel_platform.selection.budgets import water_filling
from vsel_platform.selection.result import SelectedRow, SelectionResult, TaskBudget
from vsel_platform.selection.stable_hash import stable_uniform


def stratified_random(
    sample_ids: Sequence[str], tasks: Sequence[str], has_image: Sequence[bool], budget_rows: int, *, seed: int
) -> SelectionResult:
    """Draw `budget_rows` rows, each task in proportion to its size (largest remainder).

    The draw depends on ids and seed only, not on the order of the rows; a larger budget keeps the rows of a
    smaller one within each task. Ranks interleave the tasks in proportion.
    """
    by_task: dict[str, list[int]] = defaultdict(list)
    for index, task in enumerate(tasks):
        by_task[task].append(index)
    sizes = {task: len(members) for task, members in sorted(by_task.items())}
    budgets = water_filling({task: float(size) for task, size in sizes.items()}, sizes, budget_rows)
    uniform = stable_uniform(seed, sample_ids)
    chosen: list[tuple[float, str, int]] = []
    for task, budget in budgets.items():
        ordered = sorted(by_task[task], key=lambda i: (uniform[i], sample_ids[i]))[:budget]
        chosen += [((place + 0.5) / budget, sample_ids[i], i) for place, i in enumerate(ordered)]
    rows = [
        SelectedRow(name, rank, tasks[i], "image" if has_image[i] else "text", "random", score=float(1.0 - uniform[i]))
        for rank, (_, name, i) in enumerate(sorted(chosen), start=1)
    ]
    total = sum(sizes.values()) or 1
    report = [TaskBudget(t, sizes[t], 0, None, sizes[t] / total, budgets[t], budgets[t]) for t in sizes]
    return SelectionResult(rows, report, shortfall=max(0, budget_rows - len(rows)))
