"""Files of rows: whole or not at all, JSON and Parquet."""

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vsel_platform.errors import DataError
from vsel_platform.samples.containers import json_array, json_lines, parquet
from vsel_platform.samples.writing import PARQUET_ROWS, write_rows

Row = dict[str, Any]


def broken_rows() -> Iterator[Row]:
    yield {"id": 1}
    raise RuntimeError("the rows end here")


@pytest.mark.parametrize("container", [json_array(), json_lines(), parquet()])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, container: Any) -> None:
    target = tmp_path / "rows"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="end here"):
        write_rows(broken_rows(), str(target), container)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_directories_are_made_and_other_file_systems_written(tmp_path: Path) -> None:
    write_rows([b'{"id":1}'], str(tmp_path / "a" / "b" / "rows.jsonl"), json_lines())
    assert (tmp_path / "a" / "b" / "rows.jsonl").read_text() == '{"id": 1}\n'
    write_rows([{"id": 1}], "memory://written/rows.jsonl", json_lines())
    assert fsspec.filesystem("memory").cat_file("/written/rows.jsonl") == b'{"id": 1}\n'


def test_parquet_has_all_rows_and_the_given_schema(tmp_path: Path) -> None:
    schema = pa.schema([("id", pa.int16()), ("when", pa.timestamp("us")), ("text", pa.large_string())])
    rows = [{"id": i % 100, "when": "2024-05-06T07:08:09", "text": None} for i in range(2 * PARQUET_ROWS + 1)]
    assert write_rows(rows, str(tmp_path / "rows.parquet"), parquet(schema)) == len(rows)
    table = pq.read_table(tmp_path / "rows.parquet")
    assert table.schema == schema
    assert table.num_rows == len(rows)
    assert table["when"][0].as_py() == datetime.datetime(2024, 5, 6, 7, 8, 9)


def test_parquet_without_a_schema_takes_that_of_the_first_rows(tmp_path: Path) -> None:
    write_rows([b'{"id":1,"x":[{"a":"b"}]}', b'{"id":2,"x":[]}'], str(tmp_path / "rows.parquet"), parquet())
    assert pq.read_table(tmp_path / "rows.parquet").to_pylist() == [{"id": 1, "x": [{"a": "b"}]}, {"id": 2, "x": []}]


@pytest.mark.parametrize(
    ("row", "message"), [({"id": 1, "new": 2}, "lacks: new"), ({"id": "text"}, "column 'id' does not fit")]
)
def test_rows_that_do_not_fit_a_schema_are_refused(tmp_path: Path, row: Row, message: str) -> None:
    with pytest.raises(DataError, match=message):
        write_rows([row], str(tmp_path / "rows.parquet"), parquet(pa.schema([("id", pa.int64())])))
    assert not (tmp_path / "rows.parquet").exists()


def test_embedded_bytes_come_from_the_lookup(tmp_path: Path) -> None:
    row = b'{"image":{"bytes":{"$blob":"ab"},"path":null},"raw":{"$base64":"AAE="}}'
    with pytest.raises(DataError, match="embeds the image ab"):
        write_rows([row], str(tmp_path / "rows.parquet"), parquet())
    write_rows([row], str(tmp_path / "rows.parquet"), parquet(), {"ab": b"pixels"}.__getitem__)
    table = pq.read_table(tmp_path / "rows.parquet")
    assert table.to_pylist() == [{"image": {"bytes": b"pixels", "path": None}, "raw": b"\0\x01"}]
