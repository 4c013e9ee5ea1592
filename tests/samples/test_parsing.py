"""One row's text to a value."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsel_platform.samples.parsing import MAX_DEPTH, depth, parse_row
from vsel_platform.samples.sample import Reason, RefusedRow

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def reason(raw: bytes, *, exact: bool = False) -> Reason:
    with pytest.raises(RefusedRow) as refused:
        parse_row(raw, exact=exact)
    return refused.value.reason


def text_of(raw: bytes, *, exact: bool = False) -> bytes:
    value, text = parse_row(raw, exact=exact)
    return orjson.dumps(value) if text is None else text


@settings(deadline=None)
@given(VALUES, st.booleans())
def test_a_row_keeps_its_values_and_the_order_of_its_keys(value: Any, ascii_only: bool) -> None:
    raw = json.dumps({"id": 1, "value": value}, indent=1, ensure_ascii=ascii_only).encode()
    parsed, compact = parse_row(raw, exact=True)
    assert parsed == {"id": 1, "value": value}
    assert compact is not None
    assert json.dumps(json.loads(compact)) == json.dumps(parsed)


@settings(deadline=None)
@given(st.dictionaries(TEXTS, st.integers(-(2**63), 2**64 - 1) | TEXTS))
def test_both_parsers_give_the_same_text(value: dict[str, Any]) -> None:
    raw = json.dumps(value).encode()
    assert text_of(raw) == text_of(raw, exact=True)
    assert parse_row(raw)[0] == parse_row(raw, exact=True)[0]


def test_an_integer_of_more_than_64_bits_is_kept_where_exactness_is_asked_for() -> None:
    number = 10**40 + 7
    value, compact = parse_row(b'{"id": %d}' % number, exact=True)
    assert value == {"id": number}
    assert compact == b'{"id":%d}' % number


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("literal", [b"NaN", b"Infinity", b"-Infinity", b"1e400", b"-1e999"])
def test_numbers_that_json_lacks_are_refused(literal: bytes, exact: bool) -> None:
    assert reason(b'{"score": [' + literal + b"]}", exact=exact) is Reason.NAN_LITERAL


@pytest.mark.parametrize("exact", [False, True])
def test_a_lone_surrogate_is_refused_and_a_pair_is_a_character(exact: bool) -> None:
    assert reason(rb'{"text": "\ud83d"}', exact=exact) is Reason.LONE_SURROGATE
    assert parse_row(rb'{"text": "\ud83d\ude00"}', exact=exact)[0] == {"text": "\U0001f600"}


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", Reason.INVALID_JSON),
        (b"{", Reason.INVALID_JSON),
        (b"{'a': 1}", Reason.INVALID_JSON),
        (b'{"a": 1} {"b": 2}', Reason.INVALID_JSON),
        (b'{"a": 1,}', Reason.INVALID_JSON),
        (b'{"a": "\x01"}', Reason.INVALID_JSON),
        (b'{"a": ' + b"9" * 5000 + b"}", Reason.INVALID_JSON),
        (b'{"a": "\xff"}', Reason.INVALID_UTF8),
        (b'{"a": "\xed\xa0\x80"}', Reason.INVALID_UTF8),
    ],
)
def test_broken_text_is_refused_with_its_reason(raw: bytes, expected: Reason) -> None:
    assert reason(raw, exact=raw.count(b"9") > 100) is expected


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 500, 3_000, 200_000])
def test_deep_nesting_is_refused(levels: int) -> None:
    assert reason(b"[" * levels + b"]" * levels) is Reason.NESTING_TOO_DEEP
    assert reason(b'{"a":' * levels + b"1" + b"}" * levels) is Reason.NESTING_TOO_DEEP


@pytest.mark.parametrize("exact", [False, True])
def test_the_deepest_allowed_row_is_accepted(exact: bool) -> None:
    raw = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert depth(parse_row(raw, exact=exact)[0]) == MAX_DEPTH
    assert text_of(raw, exact=exact) == raw


def test_many_flat_brackets_are_not_deep() -> None:
    raw = orjson.dumps({"turns": [{"n": i} for i in range(500)]})
    assert text_of(raw) == raw


def test_the_last_of_equal_keys_counts() -> None:
    assert text_of(b'{"a": 1, "a": 2}') == b'{"a":2}'
