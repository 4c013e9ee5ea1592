"""Boundaries of elements in a block of bytes."""

import json

import numpy as np
import pytest

from vsel_platform.samples.scanning import Outcome, long_numbers, scan

ROWS = [{"id": 0, "turns": [{"a": "x"}]}, {"id": 1, "turns": []}]


def spans(data: bytes, position: int = 1, **options: bool | int) -> tuple[list[bytes], int, Outcome]:
    found = scan(data, position, first=position == 1, **options)  # type: ignore[arg-type]
    parts = [data[start:end] for start, end in zip(found.starts, found.ends, strict=True)]
    return parts, found.position, found.outcome


def test_a_whole_array_is_closed_behind_its_bracket() -> None:
    data = json.dumps(ROWS).encode() + b"\n"
    assert spans(data) == ([json.dumps(row).encode() for row in ROWS], len(data) - 1, Outcome.CLOSED)


def test_an_array_that_goes_on_is_read_up_to_its_last_complete_element() -> None:
    data = json.dumps(ROWS).encode()
    for cut in range(len(data) - 1, 0, -1):
        parts, position, outcome = spans(data[:cut])
        assert outcome is Outcome.MORE
        assert parts == [json.dumps(row).encode() for row in ROWS[: len(parts)]]
        assert data[:position].endswith(parts[-1] if parts else b"[")


def test_the_scan_stops_at_its_limit() -> None:
    data = json.dumps(ROWS).encode()
    first = json.dumps(ROWS[0]).encode()
    assert spans(data, limit=len(first) + 5) == ([first], len(first) + 1, Outcome.MORE)


@pytest.mark.parametrize("text", ['"', "\\", "\\\\", '\\"', "\\\\\\", "[{", "}]", '"}],[{"', "\\u0022", "\n"])
def test_quotes_and_brackets_inside_strings_do_not_count(text: str) -> None:
    rows = [{"a": text, text: [text]}, {"b": text * 3}]
    data = json.dumps(rows).encode()
    parts, _, outcome = spans(data)
    assert [json.loads(part) for part in parts] == rows
    assert outcome is Outcome.CLOSED


@pytest.mark.parametrize(
    "second",
    [
        b'{"a": "x}, {"a": 1}]',
        b'{"a: "x"}, {"a": 1}]',
        b'{"a": 1, {"a": 1}]',
        b'{"a": 1}} {"a": 1}]',
        b'{"a": 1]',
        b'7, {"a": 1}]',
        b', {"a": 1}]',
        b'"x", {"a": 1}]',
        b'{"a": 1}} ',
        b"] and more",
    ],
)
def test_the_scan_stops_in_front_of_anything_odd(second: bytes) -> None:
    first = b'{"a": 0}'
    parts, position, outcome = spans(b"[" + first + b", " + second)
    assert parts[:1] == [first]
    assert outcome is Outcome.ODD
    assert position >= len(first) + 1
    assert parts[1:] in ([], [b'{"a": 1}'])


def test_only_rows_with_long_numbers_are_exact() -> None:
    short = [{"n": 10**17}, {"f": "2017/000000000012.jpg"}, {"t": "1" * 30}]
    rows = [{"n": 10**18}, *short, {"n": [-(10**19)]}, {"n": 2**64}, *short]
    data = json.dumps(rows).encode()
    found = scan(data, 1, first=True)
    assert long_numbers(data, found.starts, found.ends) == [0, 4, 5]


def test_an_empty_block_has_no_long_numbers() -> None:
    nothing = np.zeros(0, dtype=np.int64)
    assert long_numbers(b"", nothing, nothing) == []
