"""One row's JSON text to a value: fast where it can be, exact and forgiving where it must be."""

import json
import math
import re
from typing import Any, NoReturn

import orjson

from vsel_platform.samples.sample import Reason, RefusedRow

MAX_DEPTH = 64
LONG_NUMBER = re.compile(rb"[\s:,\[\-]\d{19}")


def parse_row(raw: bytes, *, exact: bool = False, shallow: bool = False) -> tuple[Any, bytes | None]:
    """Value of one row, and its compact JSON text if orjson might not write it from the value (else None).

    `exact` parses integers of more than 64 bits as integers; orjson, which reads nearly all rows, makes
    floats of them, so the reader asks for `exact` where a row holds such a number. `shallow` says that the depth
    was looked at already.
    Raises RefusedRow.
    """
    if not exact:
        try:
            value = orjson.loads(raw)
        except orjson.JSONDecodeError:
            return _parse_forgiving(raw)
        if not shallow:
            _check_depth(raw, value)
        return value, None
    return _parse_forgiving(raw)


def _parse_forgiving(raw: bytes) -> tuple[Any, bytes]:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RefusedRow(Reason.INVALID_UTF8, f"byte {error.start} of the row: {error.reason}") from error
    try:
        value = json.loads(text, parse_constant=_refuse_number, parse_float=_finite_float)
        _check_depth(raw, value)
        compact = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except json.JSONDecodeError as error:
        raise RefusedRow(Reason.INVALID_JSON, f"character {error.pos} of the row: {error.msg}") from error
    except RecursionError as error:
        raise RefusedRow(Reason.NESTING_TOO_DEEP, f"deeper than {MAX_DEPTH} levels") from error
    except ValueError as error:  # Python's limit on the digits of an integer
        raise RefusedRow(Reason.INVALID_JSON, f"a number is too long: {error}") from error
    try:
        return value, compact.encode("utf-8")
    except UnicodeEncodeError as error:
        lone = f"\\u{ord(error.object[error.start]):04x}"
        raise RefusedRow(Reason.LONE_SURROGATE, f"{lone} without its other half") from error


def _refuse_number(literal: str) -> NoReturn:
    raise RefusedRow(Reason.NAN_LITERAL, f"the number {literal}")


def _finite_float(literal: str) -> float:
    number = float(literal)
    if not math.isfinite(number):
        _refuse_number(literal[:40])
    return number


def _check_depth(raw: bytes, value: Any) -> None:
    # A row with few brackets cannot be deep; nearly all rows are through here.
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and depth(value) > MAX_DEPTH:
        raise RefusedRow(Reason.NESTING_TOO_DEEP, f"deeper than {MAX_DEPTH} levels")


def depth(value: Any) -> int:
    """Levels of nested lists and objects in a parsed value; 0 for a number or a text."""
    levels, current = 0, [value]
    while current := [item for item in current if isinstance(item, dict | list)]:
        levels += 1
        inner: list[Any] = []
        for item in current:
            inner.extend(item.values() if isinstance(item, dict) else item)
        current = inner
    return levels
