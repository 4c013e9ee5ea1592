"""The store: tables as immutable Parquet files behind pointers, and artifacts (directories of files)."""

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vsel_platform.errors import NotMaterializedError, StorageError
from vsel_platform.storage.files import FileStore
from vsel_platform.storage.pointers import (
    DataFile,
    Pointer,
    new_version,
    partition_key,
    read_pointer,
    swap_pointer,
)
from vsel_platform.tables import TABLES, TableSpec

ROWS_PER_FILE = 100_000


class Store:
    """Open a store by its root (directory or `s3://bucket/prefix`)."""

    def __init__(self, root: str) -> None:
        self.files = FileStore(root)

    def publish(
        self,
        table: str,
        partition: dict[str, str],
        data: pa.Table | Iterable[pa.Table],
        **lineage: Any,
    ) -> Pointer:
        """Publish a table partition; readers see the old state or the new one, never a part.

        `data` is one table or a stream of tables (memory: one file of 100,000 rows). `lineage` are the
        fields of Pointer: fingerprint, input_fingerprint, code_version, run_id, inputs, metadata, quality.
        Publishing the same content with the same lineage again changes nothing.
        Raises StorageError for a wrong column, type, partition, or a NULL where none is allowed.
        """
        spec = TABLES[table]
        if tuple(partition) != spec.partition_by:
            raise StorageError(f"table {table} is partitioned by {spec.partition_by}, got {tuple(partition)}")
        key = partition_key(table, partition)
        digest = hashlib.sha256()
        written = []
        for chunk in _rechunk(spec, [data] if isinstance(data, pa.Table) else data):
            payload = _logical_bytes(chunk)
            digest.update(payload)
            name = f"tables/{key}/{hashlib.sha256(payload).hexdigest()[:20]}.parquet"
            content = _parquet_bytes(chunk)
            self.files.write_once(name, content)
            written.append(DataFile(name, chunk.num_rows, len(content)))
        return self._swap(table, partition, written, digest.hexdigest()[:20], lineage)

    def publish_artifact(self, table: str, partition: dict[str, str], directory: Path, **lineage: Any) -> Pointer:
        """Publish a directory of files (checkpoint, export, page) behind a pointer of its own."""
        digest = hashlib.sha256()
        paths = sorted(path for path in directory.rglob("*") if path.is_file())
        contents = [(str(path.relative_to(directory)), path) for path in paths]
        for name, path in contents:
            digest.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
        version = digest.hexdigest()[:20]
        base = f"artifacts/{partition_key(table, partition)}/{version}"
        written = []
        for name, path in contents:
            self.files.write_once(f"{base}/{name}", path.read_bytes())
            written.append(DataFile(f"{base}/{name}", 0, path.stat().st_size))
        return self._swap(table, partition, written, version, lineage)

    def publish_pointer(
        self, table: str, partition: dict[str, str], *, rows: int, data_version: str, **lineage: Any
    ) -> Pointer:
        """Publish a pointer for data that lies elsewhere (a LanceDB table named in its metadata)."""
        return self._swap(table, partition, [], data_version, lineage, rows=rows)

    def _swap(
        self,
        table: str,
        partition: dict[str, str],
        written: list[DataFile],
        data_version: str,
        lineage: dict[str, Any],
        rows: int | None = None,
    ) -> Pointer:
        current = self.pointer(table, partition)
        pointer = Pointer(
            table=table,
            partition=dict(partition),
            version=new_version(),
            created_at=datetime.now(UTC).isoformat(),
            files=written,
            rows=sum(file.rows for file in written) if rows is None else rows,
            data_version=data_version,
            **lineage,
        )
        if current is not None and _same_state(current, pointer):
            return current
        return swap_pointer(self.files, pointer)

    def pointer(self, table: str, partition: dict[str, str]) -> Pointer | None:
        """Current pointer of a partition, None if nothing was published."""
        return read_pointer(self.files, partition_key(table, partition))

    def require(self, table: str, partition: dict[str, str]) -> Pointer:
        """Current pointer. Raises NotMaterializedError if there is none or its quality flag is not `ok`."""
        pointer = self.pointer(table, partition)
        label = ", ".join(f"{k} {v}" for k, v in partition.items())
        if pointer is None:
            raise NotMaterializedError(f"{table} of {label} has not been materialized yet")
        if pointer.quality != "ok":
            raise NotMaterializedError(
                f"{table} of {label} failed its checks ({pointer.quality}); mend the input and run it again"
            )
        return pointer

    def pointers(self, table: str | None = None) -> Iterator[Pointer]:
        """Current pointers of all partitions of one table, or of the whole store, in key order."""
        prefix = f"tables/{table}" if table else "tables"
        for path, _ in self.files.list(prefix):
            if path.endswith("/pointer.json"):
                pointer = read_pointer(self.files, path[len("tables/") : -len("/pointer.json")])
                if pointer is not None:
                    yield pointer

    def read(self, pointer: Pointer, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows of a pointer as one Arrow table (columns in the table's order)."""
        spec = TABLES[pointer.table]
        wanted = list(columns) if columns is not None else spec.column_names
        schema = pa.schema([spec.arrow_schema().field(name) for name in wanted])
        parts = [
            pq.read_table(self.files.path(file.path), columns=wanted, filesystem=self.files.fs).cast(schema)
            for file in pointer.files
        ]
        return pa.concat_tables(parts) if parts else schema.empty_table()

    def read_partition(self, table: str, partition: dict[str, str], columns: Sequence[str] | None = None) -> pa.Table:
        """Rows of the current state of a partition; NotMaterializedError if there is none."""
        return self.read(self.require(table, partition), columns)

    def fetch_artifact(self, pointer: Pointer, directory: Path) -> Path:
        """Copy an artifact's files into a local directory and return it."""
        for file in pointer.files:
            name = file.path.split(f"/{pointer.data_version}/", 1)[1]
            target = directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.files.read(file.path))
        return directory


def _same_state(a: Pointer, b: Pointer) -> bool:
    names = ("data_version", "fingerprint", "input_fingerprint", "code_version", "quality", "metadata")
    return all(getattr(a, name) == getattr(b, name) for name in names)


def _rechunk(spec: TableSpec, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
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
    try:
        result = table.select(spec.column_names).cast(schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError) as error:
        raise StorageError(f"table {spec.name}: {error}") from error
    for column in spec.columns:
        nulls = result.column(column.name).null_count
        if nulls and not column.nullable:
            raise StorageError(f"table {spec.name}: column {column.name} has {nulls} NULL value(s); none is allowed")
    return result


def _logical_bytes(table: pa.Table) -> bytes:
    """Bytes that depend on the rows alone: one IPC batch without schema metadata."""
    sink = io.BytesIO()
    plain = table.replace_schema_metadata(None).combine_chunks()
    with pa.ipc.new_stream(sink, plain.schema) as writer:
        for batch in plain.to_batches():
            writer.write_batch(batch)
    return sink.getvalue()


def _parquet_bytes(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()
