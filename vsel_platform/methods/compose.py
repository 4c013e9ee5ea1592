"""Selecting with any score, quota and diversity rule: a pure function of the signals and the scores."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from vsel_platform.errors import SelectionError
from vsel_platform.methods.api import Floats, Groups, Indices, Picking, Signals, TextPolicy
from vsel_platform.methods.free2ds import selection_pressure
from vsel_platform.methods.registry import Composition
from vsel_platform.selection.budgets import largest_remainder, water_filling
from vsel_platform.selection.result import SelectedRow, SelectionResult, TaskBudget
from vsel_platform.selection.stable_hash import stable_uniform


def compose(
    signals: Signals,
    scores: Floats,
    method: Composition,
    budget_rows: int,
    *,
    seed: int,
    text_policy: TextPolicy = "proportional",
) -> SelectionResult:
    """Select `budget_rows` rows by their scores [n] (NaN: no score, never selected).

    Where the score does not apply to text-only rows they are a stratum of their own: by `text_policy` their share of
    the budget, none, or all of them, drawn by a stable hash. The rest of the budget is split over the quota's groups
    by water-filling, capped by the rows that have a score; the diversity rule picks inside a group. Ranks let the
    groups take turns in proportion, so that a smaller budget would keep about the same share of each. What cannot
    be filled is reported as shortfall. Raises SelectionError for a budget below 1 or scores of another length.
    """
    if budget_rows < 1 or len(scores) != len(signals.sample_ids):
        raise SelectionError(f"{len(signals.sample_ids)} rows, {len(scores)} scores and a budget of {budget_rows} rows")
    is_text = np.array([image is None for image in signals.image_ids], np.bool_)
    stratum = is_text if method.score.text == "stratum" else np.zeros(len(scores), np.bool_)
    text = _text_rows(signals, stratum, budget_rows, text_policy, seed)
    can_rank = np.isfinite(scores) & ~stratum
    groups = method.quota.groups(signals, np.where(can_rank, scores, np.nan), method.quota_options)
    members = _members(groups, can_rank)
    budgets = water_filling(
        dict(zip(groups.names, groups.weights, strict=True)),
        {name: len(found) for name, found in members.items()},
        budget_rows - len(text),
    )
    strata = [(_pick(signals, scores, method, members[name], budgets[name], seed), name) for name in sorted(members)]
    ordered = _take_turns([*((rows, method.score.name) for rows, _ in strata), (text, "text")])
    selected = [
        SelectedRow(
            signals.sample_ids[i],
            rank,
            signals.tasks[i],
            "text" if is_text[i] else "image",
            reason,
            None if np.isnan(scores[i]) else float(scores[i]),
            int(groups.labels[i]) if len(groups.names) > 1 and groups.labels[i] >= 0 else None,
        )
        for rank, (i, reason) in enumerate(ordered, start=1)
    ]
    missing = int((~np.isfinite(scores) & ~stratum).sum())
    notes = [f"{missing:,} rows have no score and cannot be selected"] if missing else []
    if method.diversity.name != "top":
        notes += _pressure(np.where(can_rank, scores, np.nan), [i for i, _ in ordered if can_rank[i]])
    return SelectionResult(selected, _tasks(signals, can_rank, stratum, selected), budget_rows - len(selected), notes)


def _pressure(scores: Floats, chosen: Sequence[int]) -> list[str]:
    """How far the selection leans to high scores, in words."""
    found = selection_pressure(scores, np.array(chosen, np.int64))
    if found.mean_chosen is None or found.top_overlap is None:
        return []
    return [
        f"selection pressure: mean score {found.mean_chosen:.4g} of the selected, {found.mean_pool:.4g} of all, "
        f"{found.mean_top:.4g} of as many with the highest scores; {found.top_overlap:.1%} of the selected are those"
    ]


def _text_rows(signals: Signals, stratum: np.ndarray, budget: int, policy: TextPolicy, seed: int) -> Indices:
    rows = np.flatnonzero(stratum)
    if policy == "none" or not len(rows):
        return rows[:0]
    count = len(rows) if policy == "all" else largest_remainder([len(rows), len(stratum) - len(rows)], budget)[0]
    uniform = stable_uniform(seed, [signals.sample_ids[i] for i in rows.tolist()])
    return rows[np.lexsort((rows, uniform))][: min(count, budget)]


def _members(groups: Groups, can_rank: np.ndarray) -> dict[str, Indices]:
    labels = np.where(can_rank, groups.labels, -1)
    order = np.argsort(labels, kind="stable")
    ends = np.searchsorted(labels[order], np.arange(len(groups.names) + 1))
    return {name: order[ends[i] : ends[i + 1]] for i, name in enumerate(groups.names)}


def _pick(signals: Signals, scores: Floats, method: Composition, members: Indices, count: int, seed: int) -> Indices:
    if count <= 0:
        return members[:0]
    picked = method.diversity.pick(signals, Picking(members, scores[members], count, seed), method.diversity_options)
    if len(picked) > count or len(set(picked.tolist())) != len(picked):
        raise SelectionError(f"diversity rule {method.diversity.name} gave {len(picked)} rows for {count} places")
    return picked


def _take_turns(strata: Sequence[tuple[Indices, str]]) -> list[tuple[int, str]]:
    """Merge ordered lists so that every prefix holds about the same share of each; row numbers with reasons."""
    rows = np.concatenate([found for found, _ in strata]) if strata else np.empty(0, np.int64)
    place = np.concatenate([(np.arange(len(found)) + 0.5) / max(1, len(found)) for found, _ in strata])
    reasons = [reason for found, reason in strata for _ in range(len(found))]
    return [(int(rows[i]), reasons[i]) for i in np.lexsort((rows, place))]


def _tasks(
    signals: Signals, can_rank: np.ndarray, stratum: np.ndarray, selected: Sequence[SelectedRow]
) -> list[TaskBudget]:
    available = Counter(task for task, can in zip(signals.tasks, can_rank | stratum, strict=True) if can)
    chosen = Counter(row.task for row in selected)
    total = len(selected) or 1
    return [
        TaskBudget(task, available[task], 0, None, chosen[task] / total, chosen[task], chosen[task])
        for task in sorted(set(signals.tasks))
    ]
