"""Shares of a budget: exact sums, caps, ties by key; and the two rules of the released PreSel."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from vsel_platform.config import Budget


def softmax_weights(difficulty: Sequence[float], temperature: float) -> NDArray[np.float64]:
    """softmax(-difficulty / temperature), float64 [n] (PreSel, arXiv 2503.07591: w(T_i))."""
    scaled = -np.asarray(difficulty, np.float64) / temperature
    exponent = np.exp(scaled - scaled.max())
    return np.asarray(exponent / exponent.sum(), np.float64)


def largest_remainder(weights: Sequence[float], total: int) -> list[int]:
    """`total` split in proportion to non-negative `weights`: floors, then one each by largest remainder.

    Computed in whole numbers, so remainders that are equal are found equal; such ties go to the lower index. Weights
    that are all zero count as equal. Raises ValueError for a weight that is negative or not finite, or a negative
    total.
    """
    if total < 0 or not all(math.isfinite(w) and w >= 0 for w in weights):
        raise ValueError(f"cannot split {total} by {list(weights)[:5]}: weights must be finite and not negative")
    if not weights:
        return []
    ratios = [float(weight).as_integer_ratio() for weight in (weights if any(weights) else [1] * len(weights))]
    denominator = max(bottom for _, bottom in ratios)  # powers of two: the largest is a multiple of all
    whole = [top * (denominator // bottom) for top, bottom in ratios]
    sum_of_weights = sum(whole)
    shares = [divmod(weight * total, sum_of_weights) for weight in whole]
    result = [share for share, _ in shares]
    by_remainder = sorted(range(len(shares)), key=lambda i: (-shares[i][1], i))
    for index in by_remainder[: total - sum(result)]:
        result[index] += 1
    return result


def water_filling(weights: Mapping[str, float], capacity: Mapping[str, int], total: int) -> dict[str, int]:
    """`total` split in proportion to weights, nobody above capacity; what a full one cannot take goes to the others.

    The sum is exactly min(total, sum of capacities). Keys are taken in sorted order, so the result does not depend
    on the order of the mappings. A weight that is missing or not finite counts as zero.
    """
    keys = sorted(capacity)
    result = dict.fromkeys(keys, 0)
    open_keys = [key for key in keys if capacity[key] > 0]
    left = max(0, min(total, sum(capacity.values())))
    while left > 0:
        shares = largest_remainder([_weight(weights, key) for key in open_keys], left)
        full = {key for key, share in zip(open_keys, shares, strict=True) if share >= capacity[key]}
        if not full:
            return result | dict(zip(open_keys, shares, strict=True))
        for key in full:
            result[key] = capacity[key]
            left -= capacity[key]
        open_keys = [key for key in open_keys if key not in full]
    return result


def _weight(weights: Mapping[str, float], key: str) -> float:
    value = weights.get(key, 0.0)
    return value if math.isfinite(value) else 0.0


def released_llava_budgets(difficulty: Sequence[float], total: int) -> list[int]:
    """Rows per task of the released LLaVA branch: truncated softmax shares, the rest to the largest weight.

    T = 1/sqrt(number of tasks). Not capped by task sizes. `difficulty` is in task order. Raises ValueError for a
    difficulty that is not finite (the released code goes on with undefined numbers).
    """
    if not np.isfinite(difficulty).all():
        raise ValueError("a task has no difficulty (no finite loss), so the released budgets are undefined")
    weights = softmax_weights(difficulty, 1 / math.sqrt(len(difficulty)))
    budgets = (weights * total).astype(np.int64)
    rest = total - int(budgets.sum())
    budgets[int(weights.argmax() if rest > 0 else weights.argmin())] += rest
    return [int(budget) for budget in budgets]


def released_vision_flan_budgets(
    difficulty: Mapping[str, float], sizes: Mapping[str, int], total: int, temperature: float
) -> dict[str, int]:
    """Rows per task of the released Vision-FLAN branch, `allocate_samples`; the order of `difficulty` matters.

    Floors of the softmax shares, the rest by largest fraction, caps by `sizes` (reference rows included), what is
    over goes round in order. Raises ValueError for a difficulty that is not finite, KeyError for a task without size.
    """
    tasks = list(difficulty)
    if not np.isfinite(list(difficulty.values())).all():
        raise ValueError("a task has no difficulty (no finite loss), so the released budgets are undefined")
    total = min(total, sum(sizes.values()))
    exact = dict(zip(tasks, (softmax_weights(list(difficulty.values()), temperature) * total).tolist(), strict=True))
    budgets = {task: math.floor(share) for task, share in exact.items()}
    surplus = total - sum(budgets.values())
    for task in sorted(tasks, key=lambda t: exact[t] - budgets[t], reverse=True):
        if surplus > 0 and sizes[task] > budgets[task]:
            budgets[task] += 1
            surplus -= 1
    for task in tasks:
        over = max(0, budgets[task] - sizes.get(task, 0))
        budgets[task] -= over
        surplus += over
    while surplus > 0 and (room := [task for task in tasks if budgets[task] < sizes[task]]):
        for task in room[:surplus]:
            budgets[task] += 1
        surplus -= min(surplus, len(room))
    return budgets


def budget_text(budget: Budget) -> str:
    """A budget in words: `15 % of the rows`, `600 rows`, `50,000 tokens`, `2 hours of fine-tuning`."""
    if budget.percent is not None:
        return f"{budget.percent:g} % of the rows"
    if budget.gpu_hours is not None:
        return f"{budget.gpu_hours:g} hours of fine-tuning"
    count, noun = (budget.rows, "row") if budget.rows is not None else (budget.tokens or 0, "token")
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
