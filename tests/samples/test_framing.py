"""Messages over pipes."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsel_platform.samples.framing import pack_batch, read_parts, unpack_batch, write_parts
from vsel_platform.samples.raw import Fault, RawBatch
from vsel_platform.samples.sample import Reason


@settings(deadline=None)
@given(st.lists(st.lists(st.binary(max_size=50), max_size=4), max_size=4))
def test_messages_come_through_as_they_were(messages: list[list[bytes]]) -> None:
    stream = io.BytesIO()
    for parts in messages:
        write_parts(stream, *parts)
    stream.seek(0)
    for parts in messages:
        assert read_parts(stream) == parts
    assert read_parts(stream) is None


def test_a_message_that_is_cut_off_is_an_error() -> None:
    stream = io.BytesIO()
    write_parts(stream, b"abcdef")
    with pytest.raises(EOFError, match="3 of 6 bytes"):
        read_parts(io.BytesIO(stream.getvalue()[:-3]))


def test_a_batch_comes_through_as_it_was() -> None:
    fault = Fault(Reason.ROW_TOO_LONG, "Größe", b"\xff\x00{")
    starts, ends = (np.array(offsets, dtype=np.int64) for offsets in ([0, 3, 3], [3, 3, 5]))
    batch = RawBatch(7, b"abcde", starts, ends, {1: fault}, frozenset({0, 2}), True)
    found = unpack_batch([bytes(part) for part in pack_batch(batch)])
    assert (found.position, found.data, found.faults, found.exact, found.shallow) == (
        7,
        b"abcde",
        {1: fault},
        {0, 2},
        True,
    )
    assert (found.starts.tolist(), found.ends.tolist()) == ([0, 3, 3], [3, 3, 5])
