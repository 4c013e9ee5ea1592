"""Rows of Parquet and Arrow files."""

import datetime
import decimal
import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vsel_platform.errors import DataError
from vsel_platform.samples.columnar import BATCH_ROWS, from_json, table_batches, to_row
from vsel_platform.samples.sample import EmbeddedImage, Reason, Rejected, SourceRow

Write = Callable[[pa.Table, Path], str]


def as_parquet(table: pa.Table, folder: Path) -> str:
    pq.write_table(table, folder / "rows.parquet")
    return str(folder / "rows.parquet")


def as_stream(table: pa.Table, folder: Path) -> str:
    with pa.ipc.new_stream(folder / "rows.arrow", table.schema) as writer:
        writer.write_table(table)
    return str(folder / "rows.arrow")


def as_arrow_file(table: pa.Table, folder: Path) -> str:
    with pa.ipc.new_file(folder / "rows.arrow", table.schema) as writer:
        writer.write_table(table)
    return str(folder / "rows.arrow")


@pytest.mark.parametrize("write", [as_parquet, as_stream, as_arrow_file])
def test_every_container_gives_all_rows_in_bounded_batches(tmp_path: Path, write: Write) -> None:
    table = pa.table({"id": list(range(3 * BATCH_ROWS + 5)), "text": ["é"] * (3 * BATCH_ROWS + 5)})
    batches = list(table_batches(write(table, tmp_path), 10))
    assert max(map(len, batches)) <= BATCH_ROWS
    rows = [row for batch in batches for row in batch.rows]
    assert [row.position for row in rows] == list(range(10, 10 + table.num_rows))
    assert [row.value for row in rows if isinstance(row, SourceRow)] == table.to_pylist()


@pytest.mark.parametrize("name", ["rows.parquet", "rows.arrow"])
def test_a_file_that_is_no_table_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not a table at all")
    with pytest.raises(DataError, match=name):
        list(table_batches(str(tmp_path / name), 0))


def test_embedded_images_leave_the_json_and_come_back() -> None:
    row = {"id": 1, "images": [{"bytes": b"pixels", "path": "a.png"}, {"bytes": None, "path": "b.png"}]}
    found = to_row(0, row)
    assert isinstance(found, SourceRow)
    name = hashlib.sha256(b"pixels").hexdigest()
    assert found.value["images"] == [EmbeddedImage(name, "a.png", b"pixels"), {"bytes": None, "path": "b.png"}]
    assert b"pixels" not in found.json
    assert from_json(json.loads(found.json), {name: b"pixels"}.__getitem__) == row


def test_values_that_json_lacks_become_text_or_come_back() -> None:
    row = {
        "raw": b"\0\xff",
        "day": datetime.date(2024, 1, 2),
        "time": datetime.datetime(2024, 1, 2, 3, 4, 5),
        "price": decimal.Decimal("1.50"),
        "none": None,
    }
    found = to_row(0, row)
    assert isinstance(found, SourceRow)
    assert json.loads(found.json) == {
        "raw": {"$base64": "AP8="},
        "day": "2024-01-02",
        "time": "2024-01-02T03:04:05",
        "price": "1.50",
        "none": None,
    }


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_numbers_that_json_lacks_are_refused(number: float) -> None:
    found = to_row(3, {"scores": [1.0, number]})
    assert isinstance(found, Rejected)
    assert (found.position, found.reason) == (3, Reason.NAN_LITERAL)


def test_deep_nesting_is_refused() -> None:
    value: Any = 1
    for _ in range(100):
        value = [value]
    found = to_row(0, {"x": value})
    assert isinstance(found, Rejected)
    assert found.reason is Reason.NESTING_TOO_DEEP


def test_a_text_that_is_not_utf8_costs_its_row_only(tmp_path: Path) -> None:
    texts = pa.Array.from_buffers(pa.string(), 3, pa.array([b"a", b"\xff\xfe", b"c"], pa.binary()).buffers())
    rows = [row for batch in table_batches(as_stream(pa.table({"text": texts}), tmp_path), 0) for row in batch.rows]
    assert [row.value["text"] if isinstance(row, SourceRow) else row.reason for row in rows] == [
        "a",
        Reason.INVALID_UTF8,
        "c",
    ]
