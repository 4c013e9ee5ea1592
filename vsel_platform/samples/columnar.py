"""Rows of Parquet and Arrow files. Embedded images become `EmbeddedImage`; in the row's JSON text their bytes
are replaced by `{"$blob": image_id}`, other bytes by `{"$base64": text}`, so that the row can be written back.
"""

import base64
import datetime
import decimal
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import fsspec
import orjson

from vsel_platform.errors import DataError
from vsel_platform.identity import image_id
from vsel_platform.samples.parsing import MAX_DEPTH, depth
from vsel_platform.samples.sample import EmbeddedImage, Reason, RefusedRow, Rejected, SourceRow, reject
from vsel_platform.samples.source import ARROW_SUFFIXES

BATCH_ROWS = 256
BLOB, BASE64 = "$blob", "$base64"


@dataclass(frozen=True, slots=True)
class ValueBatch:
    """Consecutive rows that are parsed already."""

    position: int
    rows: list[SourceRow | Rejected]

    def __len__(self) -> int:
        return len(self.rows)


def table_batches(file: str, position: int) -> Iterator[ValueBatch]:
    """Rows of a Parquet file or an Arrow stream (`datasets.save_to_disk`) in batches of 256 rows.

    Raises DataError if the file cannot be read.
    """
    import pyarrow as pa

    with fsspec.open(file, "rb") as stream:
        try:
            for table in _record_batches(stream, file):
                rows = [to_row(position + i, value) for i, value in enumerate(_values(table))]
                yield ValueBatch(position, rows)
                position += len(rows)
        except pa.ArrowInvalid as error:
            raise DataError(f"{file}: not a readable Parquet or Arrow file: {error}") from error


def _record_batches(stream: Any, file: str) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not file.lower().endswith(ARROW_SUFFIXES):
        yield from pq.ParquetFile(stream).iter_batches(batch_size=BATCH_ROWS)
        return
    magic = stream.read(6)
    stream.seek(0)
    reader = pa.ipc.open_file(stream) if magic == b"ARROW1" else pa.ipc.open_stream(stream)
    batches = (reader.get_batch(i) for i in range(reader.num_record_batches)) if magic == b"ARROW1" else reader
    for batch in batches:
        for start in range(0, batch.num_rows, BATCH_ROWS):
            yield batch.slice(start, BATCH_ROWS)


def _values(table: Any) -> list[dict[str, Any] | None]:
    """Rows of a record batch; None for a row with a text that is not UTF-8."""
    try:
        return list(table.to_pylist())
    except UnicodeDecodeError:
        if table.num_rows == 1:
            return [None]
        return [value for i in range(table.num_rows) for value in _values(table.slice(i, 1))]


def to_row(position: int, value: dict[str, Any] | None) -> SourceRow | Rejected:
    """A table row as a source row, or as a rejected one if JSON cannot hold it."""
    try:
        if value is None:
            raise RefusedRow(Reason.INVALID_UTF8, "a text of the row is not UTF-8")
        if depth(value) > MAX_DEPTH:
            raise RefusedRow(Reason.NESTING_TOO_DEEP, f"deeper than {MAX_DEPTH} levels")
        parsed = {key: _with_images(item) for key, item in value.items()}
        return SourceRow(position, parsed, orjson.dumps({k: to_json(v) for k, v in parsed.items()}))
    except RefusedRow as error:
        return reject(position, error.reason, error.detail, None)


def _with_images(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_images(item) for item in value]
    if isinstance(value, dict) and set(value) == {"bytes", "path"} and isinstance(value["bytes"], bytes):
        return EmbeddedImage(image_id(value["bytes"]), value["path"], value["bytes"])
    return value


def to_json(value: Any) -> Any:
    """A value of a table row as JSON has it. Raises RefusedRow for a number that is not finite."""
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise RefusedRow(Reason.NAN_LITERAL, f"the number {value}")
    return _scalar_to_json(value)


def _scalar_to_json(value: Any) -> Any:
    if isinstance(value, EmbeddedImage):
        return {"bytes": {BLOB: value.image_id}, "path": value.path}
    if isinstance(value, bytes):
        return {BASE64: base64.b64encode(value).decode("ascii")}
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal | datetime.timedelta):
        return str(value)
    return value


def from_json(value: Any, blob: Callable[[str], bytes]) -> Any:
    """The inverse of `to_json` for bytes and images; `blob` gives the bytes of an image."""
    if isinstance(value, list):
        return [from_json(item, blob) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {BLOB}:
        return blob(value[BLOB])
    if set(value) == {BASE64}:
        return base64.b64decode(value[BASE64])
    return {key: from_json(item, blob) for key, item in value.items()}
