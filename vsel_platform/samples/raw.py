"""Batches of rows that are found but not parsed yet; small and cheap to hand to another process."""

from dataclasses import dataclass, field

import numpy as np

from vsel_platform.samples.parsing import MAX_DEPTH
from vsel_platform.samples.sample import Reason
from vsel_platform.samples.scanning import Offsets, long_numbers

MAX_ROW_BYTES = 16 << 20
MAX_BATCH_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class Fault:
    """An element that cannot be a row: why, and the beginning of its text."""

    reason: Reason
    detail: str
    text: bytes


@dataclass(frozen=True, slots=True)
class RawBatch:
    """Consecutive elements of a source: element i is `data[starts[i]:ends[i]]` unless `faults` has i.

    `position` is that of element 0; `exact` names the elements that hold integers of more than 64 bits;
    `shallow` says that no element is nested deeper than a row may be.
    """

    position: int
    data: bytes
    starts: Offsets
    ends: Offsets
    faults: dict[int, Fault] = field(default_factory=dict)
    exact: frozenset[int] = frozenset()
    shallow: bool = False

    def __len__(self) -> int:
        return len(self.starts)


class BatchBuilder:
    """Collects elements into batches of about `target_bytes` (half to one and a half of it)."""

    def __init__(self, position: int, target_bytes: int) -> None:
        self.position = position
        self._target = target_bytes
        self._clear()

    def _clear(self) -> None:
        self._parts: list[bytes] = []
        self._starts: list[Offsets] = []
        self._ends: list[Offsets] = []
        self._faults: dict[int, Fault] = {}
        self._bytes = self._count = 0
        self._shallow = True

    def add(self, data: bytes, starts: Offsets, ends: Offsets, depth: int | None = None) -> None:
        """Add elements of `data`, none of them deeper than `depth` levels (None: not known)."""
        if not starts.size:
            return
        self._shallow = self._shallow and depth is not None and depth <= MAX_DEPTH
        first, last = int(starts[0]), int(ends[-1])
        shift = self._bytes - first
        for index in np.flatnonzero(ends - starts > MAX_ROW_BYTES).tolist():
            row = data[starts[index] : starts[index] + 8_000]
            self._faults[self._count + index] = Fault(Reason.ROW_TOO_LONG, _too_long(), row)
        self._parts.append(data[first:last])
        self._starts.append(starts + shift)
        self._ends.append(ends + shift)
        self._bytes += last - first
        self._count += len(starts)

    def add_fault(self, fault: Fault) -> None:
        """Add one broken element."""
        here = np.array([self._bytes], dtype=np.int64)
        self._starts.append(here)
        self._ends.append(here)
        self._faults[self._count] = fault
        self._count += 1

    @property
    def full(self) -> bool:
        """Whether it is time to `take`."""
        return 2 * self._bytes >= self._target or self._count >= MAX_BATCH_ROWS

    def take(self) -> RawBatch | None:
        """The collected batch, None if it is empty; the next one begins behind it."""
        if not self._count:
            return None
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        starts, ends = np.concatenate(self._starts), np.concatenate(self._ends)
        exact = frozenset(long_numbers(data, starts, ends))
        batch = RawBatch(self.position, data, starts, ends, self._faults, exact, self._shallow)
        self.position += self._count
        self._clear()
        return batch


def _too_long() -> str:
    return f"longer than {MAX_ROW_BYTES} bytes"
