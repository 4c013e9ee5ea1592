"""JSON sources as streams of raw batches: a JSON array, or one JSON value per line."""

import re
from collections.abc import Iterator

import numpy as np

from vsel_platform.samples.raw import MAX_ROW_BYTES, BatchBuilder, Fault, RawBatch
from vsel_platform.samples.recovery import END, next_row, step
from vsel_platform.samples.sample import Reason
from vsel_platform.samples.scanning import Offsets, Outcome, scan
from vsel_platform.samples.window import Window

BRACKET_NEXT = re.compile(rb"[ \t\r\n]*,?[ \t\r\n]*[\[{]")
CAUTIOUS_BYTES = 4 << 10  # scanned behind an odd place; grows as long as nothing is odd


def array_batches(window: Window, position: int, target_bytes: int) -> Iterator[RawBatch]:
    """Batches of the JSON array whose `[` is at the cursor; `position` is that of its first element."""
    window.position += 1
    builder = BatchBuilder(position, target_bytes)
    splitter = _ArraySplitter(window, builder, target_bytes)
    while not splitter.closed:
        splitter.advance()
        if splitter.closed and window.peek() != END:
            # A damaged row can look like the array's end: rows that stand behind it are rows all the same.
            builder.add_fault(_behind_array(window))
            splitter.closed = not splitter.find_row()
        if builder.full and (batch := builder.take()) is not None:
            yield batch
    if (batch := builder.take()) is not None:
        yield batch


class _ArraySplitter:
    """Adds the elements of an array to a builder: many at a time by scanning, one at a time where that stops."""

    def __init__(self, window: Window, builder: BatchBuilder, target_bytes: int) -> None:
        self.closed = False
        self._window, self._builder, self._target = window, builder, target_bytes
        self._reach = target_bytes
        self._comma_due = self._careful = False

    def advance(self) -> None:
        if self._careful:
            self._step()
        else:
            self._scan()

    def find_row(self) -> bool:
        """Move to the next row from the cursor on, whatever stands before it; False if there is none."""
        next_row(self._window, skip=0)
        self._comma_due, self._careful = False, True
        return self._window.peek() != END

    def _scan(self) -> None:
        window, limit = self._window, self._window.position + self._reach
        found = scan(window.data, window.position, limit=limit, first=not self._comma_due)
        self._builder.add(window.data, found.starts, found.ends, found.depth)
        window.position = found.position
        self._comma_due = self._comma_due or bool(found.starts.size)
        self.closed = found.outcome is Outcome.CLOSED
        if found.outcome is Outcome.ODD:
            self._careful = True
        elif found.outcome is Outcome.MORE and limit < len(window.data):
            self._reach = min(4 * self._reach, self._target) if found.starts.size else 4 * self._reach
        elif found.outcome is Outcome.MORE:
            self._careful = window.left > MAX_ROW_BYTES or not _grow(window)
            self._reach = max(self._target, window.left)

    def _step(self) -> None:
        window = self._window
        element = step(window, comma_due=self._comma_due)
        if element.fault is not None:
            self._builder.add_fault(element.fault)
        elif not element.closed:
            ends = np.array([element.end], dtype=np.int64)
            self._builder.add(window.data, np.array([element.start], dtype=np.int64), ends)
        self.closed, self._comma_due = element.closed, element.comma_due
        self._careful = not BRACKET_NEXT.match(window.data, window.position)
        self._reach = CAUTIOUS_BYTES


def _grow(window: Window) -> bool:
    window.drop()
    return window.grow()


def _behind_array(window: Window) -> Fault:
    text = window.data[window.position : window.position + 8_000]
    where = f"(at byte {window.offset} of {window.name})"
    return Fault(Reason.INVALID_JSON, f"text behind the end of the array {where}", text)


def line_batches(window: Window, position: int, target_bytes: int) -> Iterator[RawBatch]:
    """Batches of a file with one JSON value per line; empty lines are skipped."""
    builder = BatchBuilder(position, target_bytes)
    while True:
        last = window.data.rfind(b"\n", window.position)
        if last < 0 and window.left > MAX_ROW_BYTES:
            builder.add_fault(_long_line(window))
            continue
        stop = len(window.data) if window.eof else last + 1
        if stop > window.position:
            block = window.data[window.position : stop]
            builder.add(block, *_lines(block))
            window.position = stop
        if builder.full and (batch := builder.take()) is not None:
            yield batch
        if window.eof:
            break
        _grow(window)
    if (batch := builder.take()) is not None:
        yield batch


def _lines(block: bytes) -> tuple[Offsets, Offsets]:
    breaks = np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == 10)
    starts, ends = np.concatenate(([0], breaks + 1)), np.concatenate((breaks, [len(block)]))
    # A JSON value of one byte is a digit: only short lines and lines that begin with a space can be empty.
    blank = [
        i
        for i in np.flatnonzero((ends - starts < 2) | _begins_with_space(block, starts)).tolist()
        if not block[starts[i] : ends[i]].strip()
    ]
    return np.delete(starts, blank), np.delete(ends, blank)


def _begins_with_space(block: bytes, starts: Offsets) -> np.ndarray:
    data = np.frombuffer(block + b"\n", dtype=np.uint8)
    return data[np.minimum(starts, len(block))] <= 32


def _long_line(window: Window) -> Fault:
    text = window.data[window.position : window.position + 8_000]
    where = f"(at byte {window.offset} of {window.name})"
    while (end := window.data.find(b"\n", window.position)) < 0:
        window.position = len(window.data)
        if not _grow(window):
            break
    window.position = len(window.data) if end < 0 else end + 1
    return Fault(Reason.ROW_TOO_LONG, f"longer than {MAX_ROW_BYTES} bytes {where}", text)
