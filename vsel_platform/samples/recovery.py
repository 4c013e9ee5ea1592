"""One element of a JSON array at a time, for the places where the fast scan found something odd.

A broken element is reported and left behind: reading goes on at the next text that parses as an object with
a conversation. So one damaged byte costs one row, not the rest of the file.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from vsel_platform.samples.raw import MAX_ROW_BYTES, Fault
from vsel_platform.samples.sample import Reason
from vsel_platform.samples.window import READ_BYTES, Window

ROW_KEYS = ("conversations", "messages", "texts")
ROW_KEY = re.compile(rb'"(?:conversations|messages|texts)"[ \t\r\n]*:')
COMMA, BRACKET, END = ord(","), ord("]"), -1
KEPT_BYTES = 64 << 10  # a row's conversation key stands at most this far behind its start
NEAR_END = 16
PIECE_BYTES = 16 << 10
TRIES, FEW_TRIES = 64, 4  # objects tried for one conversation key; few once MANY_KEYS have led nowhere
MANY_KEYS = 1_000
NESTED_BYTES = 500  # Python gives up on nesting at about 1,000 levels less the depth of its own stack


def _nothing(_: str) -> None:
    return None


# Only extents matter here: numbers are not converted, so none can be too long.
DECODER = json.JSONDecoder(parse_int=_nothing, parse_float=_nothing, parse_constant=_nothing)


@dataclass(frozen=True, slots=True)
class Step:
    """What stands at the cursor: an element [start, end) of the window's data, a fault, or the array's end.

    `comma_due`: whether a comma must come before the next element.
    """

    start: int = 0
    end: int = 0
    fault: Fault | None = None
    closed: bool = False
    comma_due: bool = True


def step(window: Window, *, comma_due: bool) -> Step:
    """Read one element at the cursor and move behind it."""
    if window.position > READ_BYTES:
        window.drop()
    byte = window.peek()
    if byte == COMMA:
        if not comma_due:
            return _stray_comma(window)
        window.position += 1
        byte = window.peek()
        if byte in (COMMA, BRACKET):
            return Step(fault=_fault(window, Reason.INVALID_JSON, "a comma with no row behind it"))
    if byte == BRACKET:
        window.position += 1
        return Step(closed=True)
    if byte == END:
        fault = _fault(window, Reason.INVALID_JSON, "the file ends before the array is closed")
        return Step(fault=fault, closed=True)
    return _element(window)


def _stray_comma(window: Window) -> Step:
    fault = _fault(window, Reason.INVALID_JSON, "a comma with no row before it")
    window.position += 1
    return Step(fault=fault, comma_due=False)


def _element(window: Window) -> Step:
    start = window.position
    decoded = _decode(window, start)
    if isinstance(decoded, Fault):
        next_row(window)
        return Step(fault=decoded, comma_due=False, closed=window.peek() == END)
    window.position = decoded[1]
    return Step(start=start, end=decoded[1])


def _decode(window: Window, start: int) -> tuple[Any, int] | Fault:
    """Value and end of the JSON value at `start`.

    It is tried on a piece that gets longer, as far as a row may be long: an error costs the length of the piece.
    """
    size = PIECE_BYTES
    while True:
        # Latin-1: one character for one byte, so that offsets are the same.
        piece = window.data[start : start + size].decode("latin-1")
        is_last = start + size >= len(window.data)
        try:
            value, end = DECODER.raw_decode(piece)
            if end < len(piece) or (is_last and not window.grow()):
                return value, start + end
        except RecursionError:
            return _fault(window, Reason.NESTING_TOO_DEEP, "nested deeper than a row may be")
        except json.JSONDecodeError as error:
            if not error.msg.startswith("Unterminated") and error.pos < len(piece) - NEAR_END:
                return _fault(window, Reason.INVALID_JSON, f"byte {error.pos} of the row: {error.msg}")
            if len(piece) > MAX_ROW_BYTES:
                return _fault(window, Reason.ROW_TOO_LONG, f"longer than {MAX_ROW_BYTES} bytes")
            if is_last and not window.grow():
                return _fault(window, Reason.INVALID_JSON, "the file ends inside the row")
        size *= 8


def _fault(window: Window, reason: Reason, detail: str) -> Fault:
    text = window.data[window.position : window.position + 8_000]
    return Fault(reason, f"{detail} (at byte {window.offset} of {window.name})", text)


def next_row(window: Window, *, skip: int = 1) -> None:
    """Move to the next object that holds a conversation, or to the end.

    `skip` bytes at the cursor are left out: the first of a broken element, so that it is not found again.
    """
    floor = window.position + skip
    search, keys = floor, 0
    while True:
        key = ROW_KEY.search(window.data, search)
        if key is not None:
            keys += 1
            tries = TRIES if keys < MANY_KEYS else FEW_TRIES
            start, search = _row_around(window, floor, key.start(), tries)
            if start is not None:
                window.position = start
                return
            continue
        cut = max(floor, len(window.data) - KEPT_BYTES)
        search = max(search, cut) - cut
        window.position, floor = cut, 0
        window.drop()
        if not window.grow():
            window.position = len(window.data)
            return


def _row_around(window: Window, floor: int, key: int, tries: int) -> tuple[int | None, int]:
    """Start of the object that has the conversation key at `key` on its top level, None if there is none; and
    where to look for the next key.
    """
    start = key
    for _ in range(tries):
        start = window.data.rfind(b"{", floor, start)
        if start < 0:
            break
        decoded = _decode(window, start)
        if isinstance(decoded, Fault):
            if decoded.reason is Reason.NESTING_TOO_DEEP:
                # Every level takes a byte at least: no row begins among them.
                return None, max(key + 1, start + NESTED_BYTES)
            continue
        value, end = decoded
        if end > key and any(name in value for name in ROW_KEYS):
            return start, end
    return None, key + 1
