"""PreSel (arXiv 2503.07591): select images before their instructions exist.

A low instruction relevance (loss with / loss without the question) means that the question helps a lot: the task is
important and gets more budget. Inside a task, images are clustered and the most typical ones are taken.
`presel_scores` makes the scores, `presel_tasks` selects inside a task, `presel_released` is the released assembly.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from vsel_platform.methods.presel_released import released_select
from vsel_platform.methods.presel_report import check_columns, order_by_id, report_tasks, selected_row
from vsel_platform.methods.presel_scores import instruction_relevance, score_images, task_importance
from vsel_platform.methods.presel_tasks import available_rows, rank_by_typicality, select_task
from vsel_platform.methods.presel_types import ImageScores, Mode, PreselOptions, PreselRows, TaskScore
from vsel_platform.selection.budgets import largest_remainder, softmax_weights, water_filling
from vsel_platform.selection.result import SelectionResult
from vsel_platform.selection.stable_hash import stable_uniform

__all__ = [
    "ImageScores",
    "Mode",
    "PreselOptions",
    "PreselRows",
    "TaskScore",
    "instruction_relevance",
    "presel_select",
    "rank_by_typicality",
    "score_images",
    "select_task",
    "task_importance",
]


def presel_select(
    rows: PreselRows,
    budget_rows: int,
    difficulty: Mapping[str, float | None],
    options: PreselOptions,
    *,
    seed: int,
    mode: Mode = "default",
) -> SelectionResult:
    """Select `budget_rows` rows, reference rows included (they have instructions and are trained on anyway).

    What is left of the budget after the text-only stratum and the reference rows is split over the tasks by
    softmax(-difficulty / T) with water-filling (PreSel, w(T_i); capped by what is available), and inside a task by
    `select_task`. If the reference rows alone exceed the budget, a stable draw of them is kept. No rows are drawn at
    random; a shortfall is reported. The order of the rows does not matter.

    Ranks: reference rows first (round 1), then the tasks and the text-only rows take turns in proportion, so that
    every prefix is a balanced smaller selection; `result.split_rounds` cuts it into rounds. Mode `released` is
    `presel_released.released_select`. Raises SelectionError for columns of different lengths, ids that occur twice,
    or a budget below 1.
    """
    check_columns(rows, budget_rows)
    if mode == "released":
        return released_select(rows, budget_rows, difficulty, options, seed=seed)
    order = order_by_id(rows)
    text = _text_stratum(rows, order, budget_rows, options, seed)
    room = budget_rows - len(text)
    reference = [i for i in order if rows.is_reference[i] and rows.image_ids[i] is not None]
    kept = _by_stable_hash(rows, reference, seed)[:room]
    by_task: dict[str, list[int]] = defaultdict(list)
    for i in available_rows(rows, order):
        by_task[rows.tasks[i]].append(i)
    weights = _weights(sorted(by_task), difficulty, options)
    capacity = {task: len(members) for task, members in by_task.items()}
    budgets = water_filling(weights, capacity, room - len(kept))
    typical = [select_task(rows, by_task[task], budgets[task], options) for task in sorted(by_task)]
    ordered = [(i, "reference") for i in kept] + _take_turns(rows, typical, text)
    selected = [selected_row(rows, i, rank, reason) for rank, (i, reason) in enumerate(ordered, start=1)]
    tasks = report_tasks(rows, selected, weights, budgets, capacity, difficulty)
    notes = _notes(rows, order, by_task, difficulty, len(reference) - len(kept))
    return SelectionResult(selected, tasks, budget_rows - len(selected), notes)


def _weights(tasks: list[str], difficulty: Mapping[str, float | None], options: PreselOptions) -> dict[str, float]:
    """Softmax weights; tasks without a difficulty get the mean of the known ones (equal weights if none is known)."""
    if not tasks:
        return {}
    known = [value for task in tasks if (value := _finite(difficulty.get(task))) is not None]
    mean = math.fsum(known) / len(known) if known else 0.0
    values = [mean if (value := _finite(difficulty.get(task))) is None else value for task in tasks]
    temperature = options.temperature or math.sqrt(1 / len(tasks))
    return dict(zip(tasks, softmax_weights(values, temperature).tolist(), strict=True))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _text_stratum(rows: PreselRows, order: Sequence[int], budget: int, options: PreselOptions, seed: int) -> list[int]:
    """Text-only rows to take: by policy, drawn by stable hash."""
    text = [i for i in order if rows.image_ids[i] is None]
    if options.text_policy == "none" or not text:
        return []
    proportional = largest_remainder([len(text), len(order) - len(text)], budget)[0]
    count = len(text) if options.text_policy == "all" else proportional
    return _by_stable_hash(rows, text, seed)[: min(count, budget)]


def _by_stable_hash(rows: PreselRows, members: Sequence[int], seed: int) -> list[int]:
    uniform = stable_uniform(seed, [rows.sample_ids[i] for i in members]).tolist()
    keyed = sorted(zip(uniform, [rows.sample_ids[i] for i in members], members, strict=True))
    return [i for *_, i in keyed]


def _take_turns(rows: PreselRows, typical: list[list[int]], text: list[int]) -> list[tuple[int, str]]:
    """Merge the lists of tasks and the text-only rows so that every prefix holds about the same share of each."""
    strata = [(found, "typical") for found in typical] + [(text, "text")]
    placed = [
        ((place + 0.5) / len(found), rows.sample_ids[i], i, reason)
        for found, reason in strata
        for place, i in enumerate(found)
    ]
    return [(i, reason) for _, _, i, reason in sorted(placed)]


def _notes(
    rows: PreselRows,
    order: Sequence[int],
    tasks: Mapping[str, Sequence[int]],
    difficulty: Mapping[str, float | None],
    reference_left_out: int,
) -> list[str]:
    notes = []
    if reference_left_out:
        notes.append(
            f"the budget is smaller than the reference subset: {reference_left_out} reference rows are left out"
        )
    candidates = sum(rows.image_ids[i] is not None and not rows.is_reference[i] for i in order)
    unscored = candidates - sum(map(len, tasks.values()))
    if unscored:
        notes.append(f"{unscored} image rows have no typicality and cannot be selected; see the table signal_failures")
    unknown = [task for task in sorted(tasks) if _finite(difficulty.get(task)) is None]
    if unknown:
        names = ", ".join(unknown[:10])
        notes.append(f"{len(unknown)} tasks have no difficulty and get the mean of the others: {names}")
    return notes
