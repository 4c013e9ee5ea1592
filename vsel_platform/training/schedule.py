"""What is trained when: the rows of every step, and its learning rate."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from statistics import fmean
from typing import Literal

import numpy as np

from vsel_platform.config_training import LoraSettings
from vsel_platform.training.samplers import balanced_parts, grouped_steps

PlannedRow = tuple[int, int]
"""(number of the row, epoch from 0)."""


@dataclass(frozen=True, slots=True)
class StepPlan:
    """All steps of a training: step, process, its rows."""

    steps: list[list[list[PlannedRow]]]

    @property
    def rows(self) -> set[int]:
        """Numbers of all rows that have a turn; in less than one epoch not every row has."""
        return {row for step in self.steps for own in step for row, _ in own}


def step_plan(lengths: Sequence[int], has_image: Sequence[bool], settings: LoraSettings, *, world: int = 1) -> StepPlan:
    """Rows of every optimiser step: `round(epochs * rows)` in all, at least one, each epoch in an order of its own.

    `lengths` [tokens] and `has_image` of every row are what `settings.order` looks at. Rows of a step are dealt out to
    the processes by length, so that they wait for each other as little as possible. The last step may be smaller. A row
    stands in a step twice only where an epoch ends in it.
    """
    if settings.order == "random":
        total = max(1, round(settings.epochs * len(lengths)))
        order = list(islice(_permutations(len(lengths), settings.seed), total))
        steps = [order[start : start + settings.batch_rows] for start in range(0, total, settings.batch_rows)]
    else:
        steps = grouped_steps(
            lengths,
            has_image if settings.order == "modality" else None,
            epochs=settings.epochs,
            batch_rows=settings.batch_rows,
            seed=settings.seed,
        )
    plan: list[list[list[PlannedRow]]] = []
    done = 0
    for step in steps:
        places = range(len(step))
        parts = balanced_parts(places, [lengths[row] for row in step], world) if world > 1 else [places]
        plan.append([[(step[place], (done + place) // len(lengths)) for place in part] for part in parts])
        done += len(step)
    return StepPlan(plan)


def _permutations(n_rows: int, seed: int) -> Iterator[int]:
    for epoch in count():
        yield from np.random.default_rng([seed, epoch]).permutation(n_rows).tolist()


def learning_rate_factor(
    step: int, *, steps: int, warmup_fraction: float, form: Literal["cosine", "linear", "constant"] = "cosine"
) -> float:
    """Factor in (0, 1] of the learning rate at `step` (0-based): linear warm-up, then half a cosine or a line towards
    0, or no change.

    Unlike the schedule of transformers it does not begin at 0, so that a run of few steps wastes none.
    """
    warmup = math.ceil(warmup_fraction * steps)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return {"cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done, "constant": 1.0}[form]


def epoch_means(losses: Sequence[float], epochs: float) -> tuple[float, float]:
    """Mean of the losses of the first and of the last epoch; `losses` are those of all steps, in order.

    Each epoch has the same number of steps, to the next whole one; a run of less than one epoch is one.
    """
    steps = max(1, math.ceil(len(losses) / max(1.0, epochs)))
    return fmean(losses[:steps]), fmean(losses[-steps:])
