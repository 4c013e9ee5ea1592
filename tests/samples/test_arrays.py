"""Elements of JSON arrays and lines: complete, in order, whatever the style, the block size or the damage."""

import io
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsel_platform.samples import arrays
from vsel_platform.samples.raw import MAX_ROW_BYTES
from vsel_platform.samples.reading import parse_batch
from vsel_platform.samples.sample import Reason, Rejected, SourceRow
from vsel_platform.samples.window import Window

AWKWARD = st.text('ab {}[],:"\\\n\té猫<>0/', max_size=20)
EXTRAS = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | AWKWARD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(AWKWARD, inner, max_size=3),
    max_leaves=6,
)
TURN = st.fixed_dictionaries({"from": st.sampled_from(["human", "gpt"]), "value": AWKWARD})
ROW = st.fixed_dictionaries(
    {"id": st.integers(0, 10**6)}, optional={"meta": EXTRAS, "conversations": st.lists(TURN, max_size=3), "z": EXTRAS}
)
FULL_ROW = st.fixed_dictionaries({"id": st.integers(0, 10**6), "conversations": st.lists(TURN, min_size=1, max_size=3)})
STYLE = st.sampled_from(
    [{}, {"indent": 2}, {"indent": 4}, {"indent": "\t"}, {"separators": (",", ":")}, {"separators": (" ,\n", " : ")}]
)
BLOCKS = st.sampled_from([7, 60, 700, 1 << 20])

Result = SourceRow | Rejected


def split(data: bytes, *, blocks: int = 1 << 20, lines: bool = False) -> list[Result]:
    """All elements of `data`, read `blocks` bytes at a time."""
    window = Window(io.BytesIO(data), name="f", read_bytes=blocks)
    window.peek()
    found: list[Result] = []
    for batch in (arrays.line_batches if lines else arrays.array_batches)(window, 0, blocks):
        assert batch.position == len(found)
        found.extend(parse_batch(batch))
    assert [row.position for row in found] == list(range(len(found)))
    return found


def values(rows: list[Result]) -> list[Any]:
    return [row.value for row in rows if isinstance(row, SourceRow)]


def reasons(rows: list[Result]) -> list[Reason]:
    return [row.reason for row in rows if isinstance(row, Rejected)]


def numbered(count: int) -> list[dict[str, Any]]:
    return [{"id": i, "conversations": [{"from": "human", "value": f"text {i}"}]} for i in range(count)]


@settings(deadline=None)
@given(st.lists(ROW, max_size=6), STYLE, st.booleans(), BLOCKS)
def test_an_array_in_any_style_and_any_blocks_gives_its_rows(
    rows: list[Any], style: dict[str, Any], ascii_only: bool, blocks: int
) -> None:
    data = json.dumps(rows, ensure_ascii=ascii_only, **style).encode()
    found = split(data, blocks=blocks)
    assert values(found) == rows
    assert not reasons(found)


@settings(deadline=None)
@given(st.lists(ROW, max_size=6), st.booleans(), BLOCKS, st.sampled_from(["\n", "\r\n", "\n\n", "\n \n"]))
def test_lines_in_any_blocks_give_their_rows(rows: list[Any], final: bool, blocks: int, ending: str) -> None:
    data = ending.join(map(json.dumps, rows)) + (ending if final else "")
    found = split(data.encode(), blocks=blocks, lines=True)
    assert values(found) == rows
    assert not reasons(found)


@settings(deadline=None, max_examples=400)
@given(st.lists(FULL_ROW, min_size=1, max_size=6), STYLE, BLOCKS, st.data())
def test_a_flipped_bit_costs_at_most_two_rows(rows: list[Any], style: Any, blocks: int, data: st.DataObject) -> None:
    text = bytearray(json.dumps(rows, **style).encode())
    at = data.draw(st.integers(1, len(text) - 1))
    text[at] ^= 1 << data.draw(st.integers(0, 7))
    found = split(bytes(text), blocks=blocks)
    kept = values(found)
    lost = [row for row in rows if row not in kept]
    assert len(lost) <= 2


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=300), BLOCKS, st.booleans())
def test_arbitrary_bytes_never_raise(data: bytes, blocks: int, lines: bool) -> None:
    for row in split(data if lines else b"[" + data, blocks=blocks, lines=lines):
        assert isinstance(row, SourceRow | Rejected)


@pytest.mark.parametrize("style", [{}, {"indent": 2}])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"text 3"', '"text 3'),
        ('"text 3"', 'text 3"'),
        ('"text 3"', "NaN"),
        ('"id": 3', '"id" 3'),
        ('"id": 3', '"id": 3]'),
        ('"id": 3', '"id": {3'),
        ('"id": 3', '"id": "\x01"'),
    ],
)
def test_a_broken_element_in_the_middle_is_the_only_one_lost(style: Any, old: str, new: str) -> None:
    rows = numbered(8)
    found = split(json.dumps(rows, **style).replace(old, new, 1).encode())
    assert values(found) == [row for row in rows if row["id"] != 3]
    assert len(found) == 8
    broken = found[3]
    assert isinstance(broken, Rejected)
    assert broken.position == 3
    assert broken.row_json is not None
    assert '"id"' in broken.row_json


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_truncated_file_keeps_its_complete_rows_and_says_so(cut: int) -> None:
    data = json.dumps(numbered(5)).encode()
    found = split(data[:-cut])
    assert values(found) == numbered(5 if cut == 1 else 4)
    assert reasons(found) == [Reason.INVALID_JSON]
    assert isinstance(found[-1], Rejected)
    assert "file ends" in found[-1].detail


@pytest.mark.parametrize(
    ("text", "kept", "faults"),
    [
        ('[{"id": 1},, {"id": 2}]', [1, 2], 1),
        ('[{"id": 1}, {"id": 2},]', [1, 2], 1),
        ('[,{"id": 1}]', [1], 1),
        ('[{"id": 1} {"id": 2}]', [1, 2], 0),
        ('[{"id": 1}] []', [1], 1),
        ("[]", [], 0),
        ("[ \n ]\n", [], 0),
        ("[", [], 1),
    ],
)
def test_commas_and_brackets_that_are_too_many_or_missing(text: str, kept: list[int], faults: int) -> None:
    found = split(text.encode())
    assert [value["id"] for value in values(found)] == kept
    assert len(reasons(found)) == faults


def test_elements_that_are_not_objects_are_elements() -> None:
    assert values(split(b'[1, {"id": 2}, "three", null, [5, [6]], true]')) == [
        1,
        {"id": 2},
        "three",
        None,
        [5, [6]],
        True,
    ]


def test_big_integers_survive_in_arrays_and_lines() -> None:
    rows = [{"id": 2**64 + i, "file": "2017/000000000012.jpg"} for i in range(300)]
    assert values(split(json.dumps(rows).encode())) == rows
    assert values(split("\n".join(map(json.dumps, rows)).encode(), lines=True)) == rows


@pytest.mark.parametrize("lines", [False, True])
def test_a_row_that_is_too_long_is_refused_and_the_next_is_read(lines: bool) -> None:
    rows = [{"id": 0, "x": "y" * (MAX_ROW_BYTES + 1)}, *numbered(2)]
    data = "\n".join(map(json.dumps, rows)) if lines else json.dumps(rows)
    found = split(data.encode(), lines=lines)
    assert reasons(found) == [Reason.ROW_TOO_LONG]
    assert values(found) == rows[1:]


@pytest.mark.parametrize(
    "bomb",
    [
        b"[" * 300_000,
        b'[{"a":' * 100_000,
        b'[{"conversations":' * 50_000,
        b'[{"conversations":"' * 3_000,
        b'[{"id":{},"conversations":"' * 3_000,
        b"[" + b"," * 20_000,
    ],
)
def test_bombs_end_quickly_and_later_rows_survive(bomb: bytes) -> None:
    started = time.monotonic()
    found = split(bomb + b" x, " + json.dumps(numbered(2)).encode()[1:])
    assert time.monotonic() - started < 20
    assert values(found)[-2:] == numbered(2)
    assert reasons(found)


def test_many_broken_rows_do_not_slow_the_reading_down() -> None:
    rows = [json.dumps(row) for row in numbered(2_000)]
    rows[::2] = [row.replace('"id"', '"id', 1) for row in rows[::2]]
    started = time.monotonic()
    found = split(("[" + ", ".join(rows) + "]").encode())
    assert [value["id"] for value in values(found)] == list(range(1, 2_000, 2))
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("broken", ['{"id": 1, "images": }"x.png"]}', '{"id": 1}]', '"a"] x'])
@pytest.mark.parametrize("blocks", [7, 1 << 20])
def test_a_damaged_row_that_looks_like_the_end_costs_itself_only(broken: str, blocks: int):
    rows = numbered(30)
    texts = [json.dumps(row) for row in rows]
    data = f"[{', '.join(texts[:10])}, {broken}, {', '.join(texts[10:])}]".encode()
    found = split(data, blocks=blocks)
    assert [row for row in values(found) if isinstance(row, dict) and "conversations" in row] == rows
    assert Reason.INVALID_JSON in reasons(found)
