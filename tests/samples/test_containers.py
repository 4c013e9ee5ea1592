"""The layout of a source file, recognised and written again byte for byte."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsel_platform.errors import DataError
from vsel_platform.samples.containers import Container, container_of, json_array, json_lines
from vsel_platform.samples.reading import read_rows
from vsel_platform.samples.sample import SourceRow
from vsel_platform.samples.writing import write_rows

ROWS: list[dict[str, Any]] = [
    {"id": "a", "image": "x.png", "conversations": [{"from": "human", "value": 'Größe?\n"\\/\t'}], "score": 0.1},
    {"id": 2**70, "conversations": [], "meta": {"z": None, "a": [1, [2.5e-7, -0.0, 1e16]]}},
    {"conversations": [{}], "id": None, "empty": {}},
]
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
STYLES: list[dict[str, Any]] = [
    {},
    {"indent": 1},
    {"indent": 2},
    {"indent": 4},
    {"indent": "\t"},
    {"separators": (",", ":")},
]


def copy(source: Path) -> bytes:
    """The source written again from its rows."""
    rows = [row for batch in read_rows([str(source)]) for row in batch]
    target = source.with_name("copy" + source.suffix)
    write_rows((row.compact for row in rows if isinstance(row, SourceRow)), str(target), container_of(str(source)))
    return target.read_bytes()


@pytest.mark.parametrize("end", ["", "\n"])
@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_an_array_is_written_as_it_was(tmp_path: Path, style: Any, ascii_only: bool, count: int, end: str) -> None:
    text = json.dumps(ROWS[:count], ensure_ascii=ascii_only, **style) + (end if count else "")
    (tmp_path / "rows.json").write_text(text, "utf-8")
    assert copy(tmp_path / "rows.json").decode() == text


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("separators", [None, (",", ":")])
@pytest.mark.parametrize("end", ["", "\n"])
def test_lines_are_written_as_they_were(tmp_path: Path, ascii_only: bool, separators: Any, end: str) -> None:
    text = "\n".join(json.dumps(row, ensure_ascii=ascii_only, separators=separators) for row in ROWS) + end
    (tmp_path / "rows.jsonl").write_text(text, "utf-8")
    assert copy(tmp_path / "rows.jsonl").decode() == text


@pytest.mark.parametrize(
    ("opening", "between", "closing"), [("[\n", ",\n", "\n]\n"), ("[", ",\n ", "]"), (" [ ", " , ", " ] ")]
)
def test_an_array_with_a_row_on_each_line_is_written_as_it_was(
    tmp_path: Path, opening: str, between: str, closing: str
) -> None:
    text = opening + between.join(json.dumps(row) for row in ROWS) + closing
    (tmp_path / "rows.json").write_text(text)
    assert copy(tmp_path / "rows.json").decode() == text


@settings(deadline=None)
@given(
    st.lists(
        st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers() | st.floats(0, 1)), min_size=1
    )
)
def test_rows_in_an_unusual_style_keep_their_values(tmp_path_factory: Any, rows: list[Any]) -> None:
    folder = tmp_path_factory.mktemp("rows")
    text = json.dumps(rows, separators=(" , ", "  :"))
    (folder / "rows.json").write_text(text)
    written = copy(folder / "rows.json")
    assert list(map(repr, json.loads(written))) == list(map(repr, rows))


def test_a_file_that_begins_with_damage_is_written_plainly(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text("[{broken, " + json.dumps(ROWS)[1:])
    assert container_of(str(tmp_path / "rows.json")) == json_array()
    (tmp_path / "rows.jsonl").write_text("{broken\n" + json.dumps(ROWS[0]) + "\n")
    assert container_of(str(tmp_path / "rows.jsonl")) == json_lines()


@pytest.mark.parametrize("indent", [None, 2, 4])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_named_style_is_that_of_the_json_library(tmp_path: Path, indent: int | None, ascii_only: bool) -> None:
    target = tmp_path / "rows.json"
    assert write_rows(ROWS, str(target), json_array(indent=indent, ensure_ascii=ascii_only)) == len(ROWS)
    assert target.read_text("utf-8") == json.dumps(ROWS, indent=indent, ensure_ascii=ascii_only)


def test_no_rows_are_an_empty_array(tmp_path: Path) -> None:
    assert write_rows([], str(tmp_path / "rows.json"), json_array(indent=4)) == 0
    assert (tmp_path / "rows.json").read_text() == "[]"


def test_a_missing_file_has_no_container(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file"):
        container_of(str(tmp_path / "gone.json"))


def test_a_container_encodes_one_row() -> None:
    assert Container("lines", compact=True, ensure_ascii=False).encode({"é": [1, 2]}) == '{"é":[1,2]}'.encode()
