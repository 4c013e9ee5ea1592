"""Where the elements of a JSON array begin and end, found with array operations over a block of bytes.

The scan follows quotes and brackets only. It does not parse: every element it finds is parsed by itself
later. What it must never do is glue rows together unnoticed, so it looks at the places that a damaged quote
or bracket disturbs (the neighbours of quotes, the byte before a value that opens inside a row, the text
between rows) and stops in front of the first row where anything is odd; `recovery` takes over there.
"""

import re
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from vsel_platform.samples.parsing import LONG_NUMBER

Offsets = NDArray[np.int64]
Bytes = NDArray[np.uint8]

QUOTE, BACKSLASH, COLON = 34, 92, 58
OPEN, CLOSE = 0x7B, 0x7D  # { and }; [ and ] become these when bit 32 is set
WHITESPACE = b" \t\r\n"
GAP = re.compile(rb"[ \t\r\n]*,[ \t\r\n]*")
FIRST_GAP = re.compile(rb"[ \t\r\n]*")
DIGIT_STRIDE = 3  # 19 digits in a row cover six multiples of 3


class Outcome(Enum):
    """How a scan ended: more bytes are needed, the array is closed, or a row looks damaged."""

    MORE = "more"
    CLOSED = "closed"
    ODD = "odd"


@dataclass(frozen=True, slots=True)
class Scan:
    """Offsets of complete elements [start, end), where the next scan begins, how this one ended, and how many
    levels the deepest of the elements has.
    """

    starts: Offsets
    ends: Offsets
    position: int
    outcome: Outcome
    depth: int


@dataclass(frozen=True, slots=True)
class _Brackets:
    at: Offsets  # offsets of brackets outside strings, up to the one that closes the array
    opening: NDArray[np.bool_]
    level: NDArray[np.int64]  # nesting level behind the bracket; 0 is the array's own
    array_end: int | None


def scan(data: bytes, position: int, *, limit: int | None = None, first: bool = False) -> Scan:
    """Complete elements of a JSON array in `data` from `position` on.

    `position` is behind the array's `[` or wherever no comma is due (then `first`), or behind an element;
    `limit` is the offset where the scan stops. Elements are objects or lists; anything else is reported odd.
    """
    stop = len(data) if limit is None else min(limit, len(data))
    block: Bytes = np.frombuffer(data, dtype=np.uint8, count=stop - position, offset=position)
    quotes = _quotes(block)
    brackets = _brackets(block, quotes)
    starts = brackets.at[brackets.opening & (brackets.level == 1)]
    ends = brackets.at[~brackets.opening & (brackets.level == 0)] + 1
    end_of_array = len(block) if brackets.array_end is None else brackets.array_end
    odd_at = min(_odd_quote(block, quotes), _odd_value(block, brackets), _odd_end(block, starts, ends), end_of_array)
    sound = int(np.searchsorted(ends, odd_at, side="right"))
    starts, ends = position + starts, position + ends
    good = _clean_gaps(data, position, starts[:sound], ends[:sound], first=first)
    behind = int(ends[good - 1]) if good else position
    outcome = Outcome.ODD if good < len(ends) or odd_at < end_of_array else Outcome.MORE
    if outcome is Outcome.MORE and brackets.array_end is not None:
        outcome, behind = _close(data, behind, position + brackets.array_end)
    return Scan(starts[:good], ends[:good], behind, outcome, int(brackets.level.max(initial=0)))


def _quotes(block: Bytes) -> Offsets:
    """Offsets of the quotes that open and close strings: those behind an even number of backslashes."""
    quotes = np.flatnonzero(block == QUOTE)
    if not quotes.size:
        return quotes
    suspects = np.flatnonzero(block[quotes - 1] == BACKSLASH)
    suspects = suspects[quotes[suspects] > 0]
    escaped = [i for i in suspects.tolist() if _is_escaped(block, int(quotes[i]))]
    return np.delete(quotes, escaped) if escaped else quotes


def _is_escaped(block: Bytes, quote: int) -> bool:
    at = quote - 1
    while at >= 0 and block[at] == BACKSLASH:
        at -= 1
    return (quote - 1 - at) % 2 == 1


def _brackets(block: Bytes, quotes: Offsets) -> _Brackets:
    folded = block | 32
    at = np.flatnonzero((folded == OPEN) | (folded == CLOSE))
    at = at[(np.searchsorted(quotes, at) & 1) == 0]
    opening = folded[at] == OPEN
    level = np.cumsum(np.where(opening, 1, -1))
    below = np.flatnonzero(level < 0)
    if not below.size:
        return _Brackets(at, opening, level, None)
    end = int(below[0])
    return _Brackets(at[:end], opening[:end], level[:end], int(at[end]))


def _table(allowed: bytes) -> NDArray[np.bool_]:
    table = np.zeros(256, dtype=bool)
    table[np.frombuffer(allowed, dtype=np.uint8)] = True
    return table


_SPACE = _table(WHITESPACE)
_BEFORE_STRING = _table(WHITESPACE + b",:[{")
_AFTER_STRING = _table(WHITESPACE + b",:]}")


def _odd_quote(block: Bytes, quotes: Offsets) -> int:
    """Offset of the first quote with an impossible neighbour outside its string; len(block) if none."""
    opening, closing = quotes[0::2], quotes[1::2]
    opening, closing = opening[opening > 0], closing[closing < len(block) - 1]
    wrong = [
        opening[~_BEFORE_STRING[block[opening - 1]]][:1],
        closing[~_AFTER_STRING[block[closing + 1]]][:1],
    ]
    return int(min((w[0] for w in wrong if w.size), default=len(block)))


def _odd_value(block: Bytes, brackets: _Brackets) -> int:
    """Offset of the first list or object that opens inside a row but not behind a colon."""
    values = brackets.at[brackets.opening & (brackets.level == 2)]
    before, two_before = block[values - 1], block[values - 2]
    usual = (before == COLON) | (_SPACE[before] & (two_before == COLON))
    for value in values[~usual].tolist():
        at = value - 1
        while at >= 0 and _SPACE[block[at]]:
            at -= 1
        if at < 0 or block[at] != COLON:
            return int(value)
    return len(block)


def _odd_end(block: Bytes, starts: Offsets, ends: Offsets) -> int:
    """Start of the first element whose closing bracket is not of the kind of its opening one."""
    wrong = np.flatnonzero(block[starts[: len(ends)]] + 2 != block[ends - 1])
    return int(starts[wrong[0]]) if wrong.size else len(block)


def _clean_gaps(data: bytes, position: int, starts: Offsets, ends: Offsets, *, first: bool) -> int:
    """Number of leading elements that are separated by one comma and white space only."""
    seen: set[bytes] = set()
    behind, due = position, FIRST_GAP if first else GAP
    for index, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        gap = data[behind:start]
        if gap not in seen:
            if not due.fullmatch(gap):
                return index
            if due is GAP:
                seen.add(gap)
            due = GAP
        behind = end
    return len(starts)


def _close(data: bytes, behind: int, bracket: int) -> tuple[Outcome, int]:
    is_bracket = data[bracket : bracket + 1] == b"]"
    followed = data[bracket + 1 : bracket + 2].strip(WHITESPACE)
    if is_bracket and not followed and FIRST_GAP.fullmatch(data[behind:bracket]):
        return Outcome.CLOSED, bracket + 1
    return Outcome.ODD, behind


def long_numbers(data: bytes, starts: Offsets, ends: Offsets) -> list[int]:
    """Indices of the elements with a number of 19 digits or more, which may not fit into 64 bits."""
    one = (np.frombuffer(data, dtype=np.uint8)[::DIGIT_STRIDE] - 48) < 10
    if one.size < 6:
        return []
    two = one[:-1] & one[1:]
    four = two[:-2] & two[2:]
    at = np.flatnonzero(four[:-2] & two[4:]) * DIGIT_STRIDE
    numbers = [i for i in at.tolist() if LONG_NUMBER.search(data, max(0, i - 5), i + 20)]
    rows = np.unique(np.searchsorted(starts, numbers, side="right") - 1)
    return [i for i in rows.tolist() if i >= 0]
