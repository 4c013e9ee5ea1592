"""Writes rows to a file in a given container: whole files only, locally by rename."""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

import fsspec
import orjson

from vsel_platform.errors import DataError
from vsel_platform.samples.columnar import from_json
from vsel_platform.samples.containers import Container
from vsel_platform.samples.parsing import parse_row

PARQUET_ROWS = 1_000
Row = bytes | dict[str, Any]
Blob = Callable[[str], bytes]


def write_rows(rows: Iterable[Row], path: str, container: Container, blob: Blob | None = None) -> int:
    """Write rows (JSON text or objects) to a file; the number of rows.

    `blob` gives the bytes of an embedded image (Parquet). A reader sees the old file or the whole new one.
    Raises DataError if rows do not fit into the container's schema.
    """
    with _replacing(path) as stream:
        if container.kind == "parquet":
            return _write_parquet(rows, stream, container, blob or _no_blob)
        return _write_json(rows, stream, container)


def _write_json(rows: Iterable[Row], stream: IO[bytes], container: Container) -> int:
    count = 0
    for count, row in enumerate(rows, start=1):
        # `exact`: integers of more than 64 bits and floats keep their values.
        value = parse_row(row, exact=True)[0] if isinstance(row, bytes) else row
        stream.write(container.separator if count > 1 else container.opening)
        stream.write(container.encode(value))
    if not count and container.kind == "array":
        stream.write(b"[]")
    elif count:
        stream.write(container.closing)
    return count


def _write_parquet(rows: Iterable[Row], stream: IO[bytes], container: Container, blob: Blob) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    values = (from_json(orjson.loads(row) if isinstance(row, bytes) else row, blob) for row in rows)
    first = list(islice(values, PARQUET_ROWS))
    schema = container.schema if container.schema is not None else pa.Table.from_pylist(first).schema
    count = 0
    with pq.ParquetWriter(stream, schema, compression="zstd") as writer:
        for chunk in chain([first], _chunks(values)):
            writer.write_table(_table(chunk, schema))
            count += len(chunk)
    return count


def _chunks(values: Iterator[Any]) -> Iterator[list[Any]]:
    while chunk := list(islice(values, PARQUET_ROWS)):
        yield chunk


def _table(rows: list[dict[str, Any]], schema: Any) -> Any:
    import pyarrow as pa

    unknown = sorted({key for row in rows for key in row} - set(schema.names))
    if unknown:
        raise DataError(f"rows have columns that the Parquet schema lacks: {', '.join(unknown)}")
    columns = []
    for column in schema:
        values = [row.get(column.name) for row in rows]
        try:
            columns.append(pa.array(values, column.type))
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            columns.append(_cast(values, column))
    return pa.Table.from_arrays(columns, schema=schema)


def _cast(values: list[Any], column: Any) -> Any:
    """Values that JSON holds as text (times, decimals) back to the column's type."""
    import pyarrow as pa

    try:
        return pa.array(values).cast(column.type)
    except pa.ArrowException as error:
        raise DataError(f"column {column.name!r} does not fit its type {column.type}: {error}") from error


def _no_blob(image_id: str) -> bytes:
    raise DataError(f"a row embeds the image {image_id}, but nothing was given that can read it")


@contextmanager
def _replacing(path: str) -> Iterator[IO[bytes]]:
    if "://" in path:
        with fsspec.open(path, "wb") as stream:
            yield stream
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".tmp-", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
