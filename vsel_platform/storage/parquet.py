"""Tables as immutable Parquet files: exact schema, content hash, chunks that depend on the rows alone."""

import hashlib
import io
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vsel_platform.errors import StorageError
from vsel_platform.tables import TableSpec

ROWS_PER_FILE = 100_000


def rechunk(spec: TableSpec, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Tables cut anew into chunks of ROWS_PER_FILE rows, so that content alone decides the files."""
    schema = spec.arrow_schema()
    pending: list[pa.Table] = []
    count = 0
    for table in tables:
        rest = conform(spec, table, schema)
        while count + rest.num_rows >= ROWS_PER_FILE:
            head = ROWS_PER_FILE - count
            yield pa.concat_tables([*pending, rest.slice(0, head)])
            rest, pending, count = rest.slice(head), [], 0
        pending.append(rest)
        count += rest.num_rows
    if count:
        yield pa.concat_tables(pending)


def conform(spec: TableSpec, table: pa.Table, schema: pa.Schema | None = None) -> pa.Table:
    """`table` in the exact schema of `spec`. Raises StorageError naming the column that does not fit."""
    schema = schema or spec.arrow_schema()
    missing = [name for name in spec.column_names if name not in table.column_names]
    extra = [name for name in table.column_names if name not in spec.column_names]
    if missing or extra:
        raise StorageError(f"table {spec.name}: missing columns {missing}, unknown columns {extra}")
    loose = pa.schema([field.with_nullable(True) for field in schema])
    try:
        result = table.select(spec.column_names).cast(loose)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, ValueError) as error:
        raise StorageError(f"table {spec.name}: {error}") from error
    for column in spec.columns:
        _refuse_bad_values(spec, column.name, result.column(column.name), nullable=column.nullable)
    return result.cast(schema)


def _refuse_bad_values(spec: TableSpec, name: str, values: pa.ChunkedArray, *, nullable: bool) -> None:
    nulls = 0 if nullable else values.null_count
    if pa.types.is_list(values.type):
        nulls += pc.list_flatten(values).null_count
    if nulls:
        raise StorageError(f"table {spec.name}: column {name} has {nulls} NULL value(s); none is allowed")
    if pa.types.is_floating(values.type):
        bad = pc.sum(pc.invert(pc.is_finite(values)), min_count=0).as_py()
        if bad:
            raise StorageError(
                f"table {spec.name}: column {name} has {bad} NaN or infinite value(s); "
                "a value that is missing or not finite is NULL"
            )


def content_hash(table: pa.Table) -> str:
    """Hash of the rows alone (20 hex digits): no chunking, buffer padding or value under a NULL counts."""
    digest = hashlib.sha256()
    for name in table.column_names:
        digest.update(f"{name}:{table.schema.field(name).type}:{table.num_rows};".encode())
        _hash_values(digest, table.column(name))
    return digest.hexdigest()[:20]


def _hash_values(digest: Any, values: pa.ChunkedArray) -> None:
    array = values.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    digest.update(np.packbits(array.is_valid().to_numpy(zero_copy_only=False)).tobytes())
    if pa.types.is_list(array.type):
        digest.update(pc.fill_null(pc.list_value_length(array), 0).to_numpy().astype("<i8").tobytes())
        _hash_values(digest, pa.chunked_array([array.flatten()]))
    elif pa.types.is_string(array.type):
        texts = pc.fill_null(array, "")
        digest.update(pc.binary_length(texts).to_numpy().astype("<i8").tobytes())
        digest.update(_text_bytes(texts))
    elif pa.types.is_boolean(array.type):
        digest.update(np.packbits(pc.fill_null(array, False).to_numpy(zero_copy_only=False)).tobytes())
    else:
        digest.update(np.ascontiguousarray(pc.fill_null(array, 0).to_numpy()).tobytes())


def _text_bytes(texts: pa.StringArray) -> memoryview:
    """All characters of a string array, one after the other."""
    _, offsets_buffer, data = texts.buffers()
    if len(texts) == 0 or data is None:
        return memoryview(b"")
    offsets = np.frombuffer(offsets_buffer, dtype=np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return memoryview(data)[int(offsets[0]) : int(offsets[-1])]


def parquet_bytes(table: pa.Table) -> bytes:
    """A Parquet file (zstd) in memory."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()
