"""The part of a stream that is in memory."""

import hashlib
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsel_platform.samples.window import Window


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(1, 50))
def test_growing_to_the_end_gives_all_bytes_and_their_digest(data: bytes, block: int) -> None:
    window = Window(io.BytesIO(data), read_bytes=block)
    while window.grow():
        assert not window.eof
    assert window.data == data
    assert window.eof
    assert window.sha256 == hashlib.sha256(data).hexdigest()


def test_the_offset_counts_what_was_dropped() -> None:
    window = Window(io.BytesIO(b"abcdefgh"), read_bytes=4)
    window.grow()
    window.position = 3
    window.drop()
    assert (window.data, window.position, window.offset, window.left) == (b"d", 0, 3, 1)
    window.grow()
    assert window.data == b"defgh"


@pytest.mark.parametrize("spaces", [0, 1, 5_000])
def test_peek_moves_behind_white_space(spaces: int) -> None:
    window = Window(io.BytesIO(b" " * spaces + b"x"), read_bytes=7)
    assert window.peek() == ord("x")
    assert window.offset == spaces
    window.position += 1
    assert window.peek() == -1


def test_the_rest_is_skipped_but_counted() -> None:
    data = bytes(range(256)) * 10
    window = Window(io.BytesIO(data), read_bytes=16)
    window.grow()
    window.skip_rest()
    assert window.offset == len(data)
    assert window.sha256 == hashlib.sha256(data).hexdigest()
