"""Shares of a budget: exact sums, caps, ties by key."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


def softmax_weights(difficulty: Sequence[float], temperature: float) -> NDArray[np.float64]:
    """softmax(-difficulty / temperature), float64 [n] (PreSel, arXiv 2503.07591: w(T_i))."""
    scaled = -np.asarray(difficulty, np.float64) / temperature
    exponent = np.exp(scaled - scaled.max())
    return np.asarray(exponent / exponent.sum(), np.float64)


def largest_remainder(weights: Sequence[float], total: int) -> list[int]:
    """`total` split in proportion to non-negative `weights`: floors, then one each by largest remainder.

    Ties go to the lower index. Weights that are all zero count as equal. Raises ValueError for a weight that is
    negative or not finite, or a negative total.
    """
    values = np.asarray(weights, np.float64)
    if total < 0 or not np.isfinite(values).all() or (values < 0).any():
        raise ValueError(f"cannot split {total} by {list(weights)[:5]}: weights must be finite and not negative")
    if not len(values):
        return []
    if not values.sum() > 0:
        values = np.ones_like(values)
    exact = values / values.sum() * total
    floors = np.floor(exact).astype(np.int64)
    rest = total - int(floors.sum())
    order = np.lexsort((np.arange(len(values)), -(exact - floors)))
    while rest > 0:  # rounding of `exact` can leave more than one round
        for index in order[:rest]:
            floors[index] += 1
        rest = total - int(floors.sum())
    while rest < 0:
        index = int(np.argmax(floors))
        floors[index] -= 1
        rest += 1
    return [int(value) for value in floors]


def water_filling(weights: Mapping[str, float], capacity: Mapping[str, int], total: int) -> dict[str, int]:
    """`total` split in proportion to weights, nobody above capacity; what a full one cannot take goes to the others.

    The sum is exactly min(total, sum of capacities). Keys are taken in sorted order, so the result does not depend
    on the order of the mappings.
    """
    keys = sorted(capacity)
    result = dict.fromkeys(keys, 0)
    open_keys = [key for key in keys if capacity[key] > 0]
    left = min(total, sum(capacity.values()))
    while left > 0 and open_keys:
        shares = largest_remainder([_weight(weights, key) for key in open_keys], left)
        full = [key for key, share in zip(open_keys, shares, strict=True) if share >= capacity[key]]
        if not full:
            for key, share in zip(open_keys, shares, strict=True):
                result[key] = share
            return result
        for key in full:
            result[key] = capacity[key]
            left -= capacity[key]
        open_keys = [key for key in open_keys if key not in full]
    return result


def _weight(weights: Mapping[str, float], key: str) -> float:
    value = weights.get(key, 0.0)
    return value if math.isfinite(value) else 0.0
