"""Arrow arrays from lists and back: the same as pyarrow's own conversion."""

import subprocess
import sys

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsel_platform.samples import arrow

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@settings(deadline=None)
@given(st.lists(TEXTS | st.none()))
def test_strings(values: list[str | None]) -> None:
    encoded = [None if value is None else value.encode() for value in values]
    array = arrow.strings(encoded)
    array.validate(full=True)
    assert array.equals(pa.array(values, pa.string()))
    assert arrow.lengths(arrow.strings([v or b"" for v in encoded])) == [len(v or b"") for v in encoded]


@settings(deadline=None)
@given(st.lists(st.lists(TEXTS, max_size=4)))
def test_lists_of_strings(values: list[list[str]]) -> None:
    array = arrow.string_lists([[text.encode() for text in texts] for texts in values])
    array.validate(full=True)
    assert array.equals(pa.array(values, pa.list_(pa.string())))


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4)))
def test_lists_of_numbers_and_back(values: list[list[int]]) -> None:
    array = arrow.number_lists(values)
    array.validate(full=True)
    assert array.equals(pa.array(values, pa.list_(pa.int32())))
    assert arrow.list_values(array) == values


@pytest.mark.parametrize("kind", ["int32", "int64"])
@settings(deadline=None)
@given(values=st.lists(st.integers(-(2**31), 2**31 - 1) | st.none()))
def test_numbers(kind: str, values: list[int | None]) -> None:
    array = arrow.numbers(values, kind)
    array.validate(full=True)
    assert array.equals(pa.array(values, getattr(pa, kind)()))


@settings(deadline=None)
@given(st.lists(st.booleans()))
def test_booleans(values: list[bool]) -> None:
    assert arrow.booleans(values).equals(pa.array(values, pa.bool_()))


@settings(deadline=None)
@given(st.lists(st.binary(min_size=5, max_size=5)), st.integers(0, 3))
def test_fixed_values_and_back(values: list[bytes], skip: int) -> None:
    array = arrow.digests(values, 5)
    assert array.equals(pa.array(values, pa.binary(5)))
    assert arrow.fixed_values(array, 5) == values
    assert arrow.fixed_values(array.slice(skip), 5) == values[skip:]
    assert arrow.lengths(arrow.strings(values).slice(skip)) == [5] * len(values[skip:])


def test_pandas_is_not_imported() -> None:
    code = (
        "import sys; from vsel_platform.samples import arrow as a; a.strings([b'x', None]); a.numbers([1], 'int64');"
        "a.list_values(a.number_lists([[1], []])); a.booleans([True]); sys.exit('pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
