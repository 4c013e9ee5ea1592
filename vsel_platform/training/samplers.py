"""Which rows make an optimiser step: rows of similar length, of one modality, in an order drawn per epoch."""

import math
from collections.abc import Hashable, Iterator, Sequence

import numpy as np

from vsel_platform.errors import ConfigError

WINDOW_STEPS = 50
"""Rows of so many steps are sorted by length together: enough to find rows alike, few enough to stay random."""


def grouped_steps(
    lengths: Sequence[int],
    groups: Sequence[Hashable] | None = None,
    *,
    epochs: float,
    batch_rows: int,
    seed: int,
    window_steps: int = WINDOW_STEPS,
) -> list[list[int]]:
    """Row indices of every optimiser step, rows of a step of similar length and of one group (modality).

    `lengths` are in tokens; `groups` says what each row is (such as whether it has an image), None: all the same.
    Every epoch takes every row once. What is left over of each group, less than a step, makes steps across groups; all
    steps of an epoch but one have `batch_rows` rows, and they come in an order of their own. A fraction of an epoch is
    its first steps, `round(epochs * rows)` rows in all, at least one. Raises ConfigError for arguments that make no
    sense.
    """
    if not lengths or min(batch_rows, window_steps) < 1 or not epochs > 0:
        raise ConfigError(
            f"training: no steps can be made of {len(lengths)} rows in {epochs} epochs, {batch_rows} rows per step"
        )
    if groups is not None and len(groups) != len(lengths):
        raise ConfigError(f"training: {len(groups)} groups for {len(lengths)} rows")
    left, steps = max(1, round(epochs * len(lengths))), []
    for epoch in range(math.ceil(left / len(lengths))):
        rng = np.random.default_rng([seed, epoch])
        for step in _epoch(lengths, groups or [0] * len(lengths), batch_rows, window_steps, rng):
            steps.append(step[:left])
            left -= len(steps[-1])
            if not left:
                return steps
    return steps


def _epoch(
    lengths: Sequence[int],
    groups: Sequence[Hashable],
    batch_rows: int,
    window_steps: int,
    rng: np.random.Generator,
) -> Iterator[list[int]]:
    """All rows once, in steps."""
    steps: list[list[int]] = []
    rest: list[int] = []
    for group in dict.fromkeys(groups):
        members = [i for i, own in enumerate(groups) if own == group]
        order = [members[i] for i in rng.permutation(len(members))]
        whole = len(order) // batch_rows * batch_rows
        steps += _alike(order[:whole], lengths, batch_rows, window_steps)
        rest += order[whole:]
    steps += _alike(rest, lengths, batch_rows, window_steps)
    for i in rng.permutation(len(steps)):
        yield steps[i]


def _alike(order: Sequence[int], lengths: Sequence[int], batch_rows: int, window_steps: int) -> Iterator[list[int]]:
    """Rows in steps of similar length, the longest of every window first."""
    window = batch_rows * window_steps
    for start in range(0, len(order), window):
        rows = sorted(order[start : start + window], key=lambda i: lengths[i], reverse=True)
        for first in range(0, len(rows), batch_rows):
            yield rows[first : first + batch_rows]


def balanced_parts(rows: Sequence[int], lengths: Sequence[int], parts: int) -> list[list[int]]:
    """Rows of a step for several processes: numbers of rows that differ by one at most, sums of lengths nearly equal.

    The longest row goes first, each to the part with the smallest sum that has room (the first of equals).
    """
    if parts < 1:
        raise ConfigError(f"training: rows cannot be split into {parts} parts")
    room = [len(rows) // parts + (part < len(rows) % parts) for part in range(parts)]
    found: list[list[int]] = [[] for _ in range(parts)]
    sums = [0] * parts
    for row in sorted(rows, key=lambda i: lengths[i], reverse=True):
        part = min((p for p in range(parts) if len(found[p]) < room[p]), key=lambda p: sums[p])
        found[part].append(row)
        sums[part] += lengths[row]
    return found
