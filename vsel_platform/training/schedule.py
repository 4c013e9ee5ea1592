"""What is trained when: the order of rows, and the learning rate of every step."""

import math
from collections.abc import Iterator, Sequence
from statistics import fmean

import numpy as np


def step_batches(n_rows: int, *, epochs: float, batch_rows: int, seed: int) -> list[list[int]]:
    """Row indices of every optimiser step: seeded permutations, one after the other.

    `round(epochs * n_rows)` rows in all, at least one; the last step may be smaller.
    """
    total = max(1, round(epochs * n_rows))
    order = _endless_permutations(n_rows, seed)
    rows = [next(order) for _ in range(total)]
    return [rows[start : start + batch_rows] for start in range(0, total, batch_rows)]


def _endless_permutations(n_rows: int, seed: int) -> Iterator[int]:
    generator = np.random.default_rng(seed)
    while True:
        yield from generator.permutation(n_rows).tolist()


def learning_rate_factor(step: int, *, steps: int, warmup_fraction: float) -> float:
    """Factor in (0, 1] of the learning rate at `step` (0-based): linear warm-up, then half a cosine towards 0.

    Unlike the schedule of transformers it does not begin at 0, so that a run of few steps wastes none.
    """
    warmup = math.ceil(warmup_fraction * steps)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def epoch_means(losses: Sequence[float], epochs: float) -> tuple[float, float]:
    """Mean of the losses of the first and of the last epoch; `losses` are those of all steps, in order.

    Each epoch has the same number of steps, to the next whole one; a run of less than one epoch is one.
    """
    steps = max(1, math.ceil(len(losses) / max(1.0, epochs)))
    return fmean(losses[:steps]), fmean(losses[-steps:])
