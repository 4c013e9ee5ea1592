"""Signals of a few rows, given as arrays: what a method sees, without a store."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from vsel_platform.methods.api import LossColumns
from vsel_platform.selection.leverage import Moments, moments_of


@dataclass
class ArraySignals:
    """`methods.api.Signals` from plain values; a missing array of a signal is an error, as in a store."""

    sample_ids: Sequence[str]
    tasks: Sequence[str]
    image_ids: Sequence[str | None]
    mean_losses: Mapping[str, Sequence[float]] = field(default_factory=dict)
    matrices: Mapping[str, tuple[Sequence[int], np.ndarray]] = field(default_factory=dict)
    block_rows: int = 3

    @property
    def n_characters(self) -> np.ndarray:
        return np.arange(len(self.sample_ids), dtype=np.int64)

    def losses(self, condition: str) -> LossColumns:
        mean = np.asarray(self.mean_losses[condition], np.float64)
        return LossColumns(mean * 4, mean, np.full(len(mean), 4.0), mean / 2, mean / 10)

    def vectors(self, signal: str) -> tuple[np.ndarray, np.ndarray]:
        index, matrix = self.matrices[signal]
        return np.asarray(index, np.int64), np.asarray(matrix, np.float32)

    def blocks(self, signal: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        index, matrix = self.vectors(signal)
        rows = np.flatnonzero(index >= 0)
        for start in range(0, len(rows), self.block_rows):
            part = rows[start : start + self.block_rows]
            yield part, matrix[index[part]]

    def moments(self, signal: str) -> Moments:
        return moments_of(block for _, block in self.blocks(signal))


def signals_of(tasks: str, *, text: Sequence[int] = (), **values) -> ArraySignals:
    """Rows named r00, r01, ... with one-letter tasks; the rows in `text` have no image."""
    images = [None if i in text else f"image{i}" for i in range(len(tasks))]
    return ArraySignals([f"r{i:02}" for i in range(len(tasks))], list(tasks), images, **values)
