"""Free2DS, image side: relative attention maps and how much two models agree on them (specification C1.3, C1.4).

A token of the answer that looks at the image spreads its attention over P vision tokens. Divided by the attention of
the last generated step, which stands for where the model looks anyway, it tells what the answer needed.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsel_platform.errors import SelectionError

EPSILON = 1e-10
TOP_PERCENT = 30
Floats = NDArray[np.floating[Any]]


def step_attention(layers: Sequence[Floats], vision: tuple[int, int]) -> NDArray[np.float32]:
    """Attention of one generated step to the vision tokens, float32 [P]: a_t of specification C1.3.

    `layers` holds one array [heads, queries, keys] per layer; the last query counts, heads and layers are averaged
    in float32. `vision` is the range [start, end) of keys that are vision tokens.
    """
    rows = [np.asarray(layer[:, -1, slice(*vision)], np.float32).mean(axis=0) for layer in layers]
    return np.asarray(np.mean(rows, axis=0, dtype=np.float32))


def relative_maps(attention: Floats) -> NDArray[np.float32]:
    """Relative attention maps float32 [T - 1, P] of the generated steps `attention` [T, P] (specification C1.3).

    Map t is a_t / (a_last + 1e-10), divided by its sum if that is positive. The last step is the denominator and
    has no map of its own, so an answer of a single step has none: [0, P].
    """
    steps = np.asarray(attention, np.float32)
    if steps.ndim != 2:
        raise SelectionError(f"attention has the shape {steps.shape}; expected [steps, vision tokens]")
    relative = steps[:-1] / (steps[-1:] + np.float32(EPSILON))
    sums = relative.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(relative, sums, out=relative, where=sums > 0), np.float32)


def aggregate_maps(maps: Floats) -> NDArray[np.float32] | None:
    """Sum of maps [T, P] over the tokens of the answer, divided by its sum if positive: float32 [P].

    None without a map, or when a value is not finite: such a sample has no image score.
    """
    found = np.asarray(maps, np.float32)
    if len(found) == 0 or not np.isfinite(found).all():
        return None
    total = found.sum(axis=0)
    mass = total.sum()
    return np.asarray(total / mass if mass > 0 else total, np.float32)


def top_tokens(vector: Floats, percent: float = TOP_PERCENT) -> NDArray[np.int64]:
    """Indices int64 [k] of the k = max(1, int(P * percent / 100)) largest of P values, ascending; ties by index."""
    count = max(1, int(len(vector) * percent / 100))
    return np.sort(np.argsort(-np.asarray(vector), kind="stable")[:count]).astype(np.int64)


def token_iou(first: Collection[int], second: Collection[int]) -> float:
    """Intersection over union of two sets of tokens; NaN if both are empty."""
    a, b = set(first), set(second)
    return len(a & b) / len(a | b) if a or b else math.nan


def attention_iou(first: Floats, second: Floats, percent: float = TOP_PERCENT) -> float:
    """IoU of the top tokens of two aggregated maps [P] (specification C1.4).

    Raises SelectionError for maps of different lengths: their tokens do not show the same places.
    """
    if len(first) != len(second):
        raise SelectionError(
            f"maps of {len(first)} and {len(second)} vision tokens cannot be compared; use models with the same grid"
        )
    return token_iou(top_tokens(first, percent).tolist(), top_tokens(second, percent).tolist())


def chunk_ious(
    first: Mapping[str, Sequence[Mapping[str, Any]]], second: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[int, float]:
    """IoU per sample id, from the chunk files {name: [{"sample_id", "relative_attention_maps"}]} of two models.

    As released: only chunks that both have, in the order of their names; only samples that have a map in both.
    """
    found: dict[int, float] = {}
    for name in sorted(first.keys() & second.keys()):
        a, b = _aggregated(first[name]), _aggregated(second[name])
        found |= {sample: attention_iou(a[sample], b[sample]) for sample in a if sample in b}
    return found


def _aggregated(records: Sequence[Mapping[str, Any]]) -> dict[int, NDArray[np.float32]]:
    maps = {record["sample_id"]: aggregate_maps(record["relative_attention_maps"]) for record in records}
    return {sample: vector for sample, vector in maps.items() if vector is not None}
