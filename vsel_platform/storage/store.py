"""The store: tables as immutable Parquet files behind pointers, and artifacts (directories of files)."""

import hashlib
import secrets
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vsel_platform.errors import NotMaterializedError, StorageError
from vsel_platform.storage.files import FileStore
from vsel_platform.storage.parquet import ROWS_PER_FILE, conform, content_hash, parquet_bytes, rechunk
from vsel_platform.storage.pointers import (
    DataFile,
    Pointer,
    partition_key,
    pointer_from_bytes,
    read_pointer,
    swap_pointer,
)
from vsel_platform.tables import TABLES, TableSpec

__all__ = ["ROWS_PER_FILE", "Store", "conform"]

_POINTERS_AT_ONCE = 256


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
        Raises StorageError for a wrong column, type, partition, a NULL where none is allowed, or a value
        that is NaN or infinite.
        """
        spec = _spec(table)
        if tuple(partition) != spec.partition_by:
            raise StorageError(f"table {table} is partitioned by {spec.partition_by}, got {tuple(partition)}")
        key = partition_key(table, partition)
        current = read_pointer(self.files, key)
        digest = hashlib.sha256()
        written = []
        for chunk in rechunk(spec, [data] if isinstance(data, pa.Table) else data):
            content = content_hash(chunk)
            digest.update(content.encode())
            written.append(self._reuse(current, content) or self._write(key, chunk, content))
        return self._swap(table, partition, current, written, digest.hexdigest()[:20], lineage)

    def _reuse(self, current: Pointer | None, content: str) -> DataFile | None:
        """The file of the current state that has this content.

        Only a file that the current pointer names may be used again: garbage collection could remove any other
        one before the new pointer names it.
        """
        for file in current.files if current else []:
            name = file.path.rpartition("/")[2]
            if name.startswith(f"{content}-") and self.files.exists(file.path):
                return file
        return None

    def _write(self, key: str, chunk: pa.Table, content: str) -> DataFile:
        name = f"tables/{key}/{content}-{secrets.token_hex(4)}.parquet"
        data = parquet_bytes(chunk)
        self.files.write(name, data)
        return DataFile(name, chunk.num_rows, len(data))

    def publish_artifact(self, table: str, partition: dict[str, str], directory: Path, **lineage: Any) -> Pointer:
        """Publish a directory of files (checkpoint, export, page) behind a pointer of its own."""
        paths = sorted(path for path in directory.rglob("*") if path.is_file())
        named = [(path.relative_to(directory).as_posix(), path) for path in paths]
        digest = hashlib.sha256()
        for name, path in named:
            with path.open("rb") as file:
                digest.update(name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
        version = digest.hexdigest()[:20]
        key = partition_key(table, partition)
        current = read_pointer(self.files, key)
        if current is not None and current.data_version == version and self._complete(current):
            return self._swap(table, partition, current, current.files, version, lineage)
        base = f"artifacts/{key}/{version}-{secrets.token_hex(4)}"
        written = []
        for name, path in named:
            self.files.put(f"{base}/{name}", path)
            written.append(DataFile(f"{base}/{name}", 0, path.stat().st_size))
        return self._swap(table, partition, current, written, version, lineage)

    def _complete(self, pointer: Pointer) -> bool:
        return all(self.files.exists(file.path) for file in pointer.files)

    def publish_pointer(
        self, table: str, partition: dict[str, str], *, rows: int, data_version: str, **lineage: Any
    ) -> Pointer:
        """Publish a pointer for data that lies elsewhere (a LanceDB table named in its metadata)."""
        current = read_pointer(self.files, partition_key(table, partition))
        return self._swap(table, partition, current, [], data_version, lineage, rows=rows)

    def _swap(
        self,
        table: str,
        partition: dict[str, str],
        current: Pointer | None,
        written: list[DataFile],
        data_version: str,
        lineage: dict[str, Any],
        rows: int | None = None,
    ) -> Pointer:
        pointer = Pointer(
            table=table,
            partition=dict(partition),
            files=written,
            rows=sum(file.rows for file in written) if rows is None else rows,
            data_version=data_version,
            **lineage,
        )
        try:
            pointer = pointer_from_bytes(pointer.to_bytes())  # as it will be read back: tuples are lists
        except TypeError as error:
            raise StorageError(f"{pointer.key}: lineage and metadata must be plain JSON: {error}") from error
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
        paths = [path for path, _ in self.files.list(prefix) if path.endswith("/pointer.json")]
        for start in range(0, len(paths), _POINTERS_AT_ONCE):
            batch = paths[start : start + _POINTERS_AT_ONCE]
            for data in self.files.read_many(batch).values():
                yield pointer_from_bytes(data)

    def read(self, pointer: Pointer, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows of a pointer as one Arrow table (columns in the table's order)."""
        spec = _spec(pointer.table)
        wanted = list(columns) if columns is not None else spec.column_names
        schema = pa.schema([spec.arrow_schema().field(name) for name in wanted])
        parts = [self._read_file(file, wanted).cast(schema) for file in pointer.files]
        return pa.concat_tables(parts) if parts else schema.empty_table()

    def _read_file(self, file: DataFile, columns: list[str]) -> pa.Table:
        if self.files.is_local:
            source: Any = self.files.path(file.path)
        else:
            source = pa.BufferReader(self.files.read(file.path))
        try:
            with pq.ParquetFile(source) as parquet:
                return parquet.read(columns=columns).select(columns)
        except FileNotFoundError as error:
            raise StorageError(f"missing file {self.files.url(file.path)}") from error

    def read_partition(self, table: str, partition: dict[str, str], columns: Sequence[str] | None = None) -> pa.Table:
        """Rows of the current state of a partition; NotMaterializedError if there is none."""
        return self.read(self.require(table, partition), columns)

    def fetch_artifact(self, pointer: Pointer, directory: Path) -> Path:
        """Copy an artifact's files into a local directory and return it."""
        for file in pointer.files:
            target = directory / artifact_name(pointer, file)
            if not target.resolve().is_relative_to(directory.resolve()):
                raise StorageError(f"{pointer.reference}: {file.path} lies outside the artifact")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.files.read(file.path))
        return directory


def artifact_name(pointer: Pointer, file: DataFile) -> str:
    """Path of a file inside its artifact."""
    return file.path.removeprefix(f"artifacts/{pointer.key}/").partition("/")[2]


def _spec(table: str) -> TableSpec:
    if table not in TABLES:
        raise StorageError(f"unknown table {table!r}; known: {', '.join(TABLES)}")
    return TABLES[table]


def _same_state(a: Pointer, b: Pointer) -> bool:
    names = (
        "data_version", "files", "rows", "fingerprint", "input_fingerprint", "code_version", "quality", "metadata",
    )  # fmt: skip
    return all(getattr(a, name) == getattr(b, name) for name in names)
