"""Embeddings in LanceDB: one table per signal and encoder fingerprint, written one shard at a time."""

import os
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vsel_platform.errors import ConflictError, NotMaterializedError, StorageError
from vsel_platform.storage.files import FileStore

VECTOR_SIGNALS = {
    "image_embeddings": "Embedding of every distinct image under an encoder (LanceDB).",
    "text_embeddings": "Embedding of every distinct question under a text encoder (LanceDB).",
    "vision_representations": "What the instruction looks at in the image, per row: mean of the attended image tokens "
    "behind the first decoder layer (ScalSelect; LanceDB).",
    "hidden_states": "Pooled hidden states of a row at chosen decoder layers: per layer the mean of its image tokens, "
    "then that of its text tokens, each of length 1 (LanceDB).",
}
FOLDER = "vectors"
ROWS_PER_FRAGMENT = 100_000
BLOCK_ROWS = 8192
COMPACT_ATTEMPTS = 5
# A writer that holds the claim to create a table does so within this time, or was killed.
CLAIM_S = 60.0
WAIT_S = 0.05


@dataclass(frozen=True, slots=True)
class LanceVersion:
    """A state of a LanceDB table: its name (without `.lance`) and version."""

    table: str
    version: int


@dataclass(frozen=True, slots=True)
class VectorCheck:
    """Rows of a table and how many distinct ids they have; equal unless concurrent writers doubled rows."""

    rows: int
    distinct: int


@dataclass(frozen=True, slots=True)
class Compaction:
    """Files of a table before and after compaction, and the version that it made."""

    fragments_before: int
    fragments_after: int
    version: int


class VectorStore:
    """Vectors under `<root>/vectors/`. Lance is not fork-safe: open it in the process that uses it."""

    def __init__(self, root: str) -> None:
        self.files = FileStore(root)

    def replace_shard(
        self,
        signal: str,
        fingerprint: str,
        shard: str,
        ids: Sequence[str],
        vectors: np.ndarray,
        *,
        dtype: Literal["float32", "float16"] = "float32",
    ) -> LanceVersion:
        """Make `vectors` [n, d] the vectors of `ids` and the only rows of `shard`, in one commit, and tag it.

        An id lives in one shard: the one that wrote it last. `dtype` counts when the table is made.
        Raises StorageError for a repeated id, a non-finite value, or a dimension that the table does not have.
        """
        _check_vectors(ids, vectors)
        name = table_name(signal, fingerprint)
        table = self._open_or_create(name, vectors.shape[1], dtype)
        schema = table.schema
        rows = _rows(schema, ids, shard, vectors)
        condition = f"shard = {_quoted(shard)}"
        result = (
            table.merge_insert("id")
            .when_matched_update_all()
            .when_not_matched_insert_all()
            .when_not_matched_by_source_delete(condition)
            .execute(rows)
        )
        table.tags.create(f"v{result.version}", result.version)
        return LanceVersion(name, int(result.version))

    def read(
        self, signal: str, fingerprint: str, ids: Sequence[str] | None, version: int | None = None
    ) -> tuple[list[str], np.ndarray]:
        """(ids, vectors float32 [n, d]) of the given ids that are stored, or of all (None), sorted by id.

        Raises NotMaterializedError if there is no such table, StorageError if the version was collected.
        """
        name = table_name(signal, fingerprint)
        dataset = self.dataset(name, version)
        if dataset is None:
            raise NotMaterializedError(f"{signal} under fingerprint {fingerprint} has not been materialized yet")
        if ids is None:
            found = dataset.to_table(columns=["id", "vector"])
        else:
            positions = _positions(dataset, ids)
            found = dataset.take(positions, columns=["id", "vector"])
        found = found.take(pc.sort_indices(found["id"])).combine_chunks()
        dimension = found.schema.field("vector").type.list_size
        values = found["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return found["id"].to_pylist(), values.reshape(-1, dimension).astype(np.float32)

    def blocks(
        self, signal: str, fingerprint: str, version: int | None = None, *, block_rows: int = BLOCK_ROWS
    ) -> Iterator[tuple[list[str], np.ndarray]]:
        """All ids and vectors float32 [b, d] of a table in blocks of bounded size, in no particular order.

        Raises NotMaterializedError if there is no such table, StorageError if the version was collected.
        """
        dataset = self.dataset(table_name(signal, fingerprint), version)
        if dataset is None:
            raise NotMaterializedError(f"{signal} under fingerprint {fingerprint} has not been materialized yet")
        for batch in dataset.to_batches(columns=["id", "vector"], batch_size=block_rows):
            column = batch["vector"]
            values = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
            yield batch["id"].to_pylist(), values.astype(np.float32)

    def existing_ids(self, signal: str, fingerprint: str, ids: Collection[str]) -> set[str]:
        """Those of the given ids that have a vector."""
        dataset = self.dataset(table_name(signal, fingerprint))
        if dataset is None or not ids:
            return set()
        stored = dataset.to_table(columns=["id"])["id"]
        return set(stored.filter(pc.is_in(stored, _strings(ids))).to_pylist())

    def check(self, signal: str, fingerprint: str) -> VectorCheck:
        """Count rows and distinct ids of a table (0 and 0 if there is none)."""
        dataset = self.dataset(table_name(signal, fingerprint))
        if dataset is None:
            return VectorCheck(0, 0)
        stored = dataset.to_table(columns=["id"])["id"]
        return VectorCheck(len(stored), len(pc.unique(stored)))

    def compact(self, signal: str, fingerprint: str) -> Compaction:
        """Merge a table's many small files into few. Not beside writers: their commits come first.

        Raises NotMaterializedError if there is no table, StorageError if writers always came first.
        """
        name = table_name(signal, fingerprint)
        for _ in range(COMPACT_ATTEMPTS):
            dataset = self.dataset(name)
            if dataset is None:
                raise NotMaterializedError(f"there is no table {name}")
            before = len(dataset.get_fragments())
            try:
                dataset.optimize.compact_files(target_rows_per_fragment=ROWS_PER_FRAGMENT)
            except OSError as error:
                if "conflict" not in str(error).lower():
                    raise StorageError(f"cannot compact {name}: {error}") from error
                continue
            return Compaction(before, len(dataset.get_fragments()), int(dataset.version))
        raise StorageError(f"{name}: writers came first {COMPACT_ATTEMPTS} times; compact when none is running")

    def tables(self) -> list[str]:
        """Names of the tables (without `.lance`)."""
        folders = {path.split("/")[1] for path, _ in self.files.list(FOLDER)}
        return sorted(folder.removesuffix(".lance") for folder in folders if folder.endswith(".lance"))

    def dataset(self, name: str, version: int | None = None) -> Any:
        """A table as a Lance dataset (also a pyarrow dataset) at a version (None: newest); None if missing.

        Raises StorageError if the table is there but the version is not.
        """
        import lance

        if not self._exists(name):
            return None
        try:
            return lance.dataset(self._uri(name), version=version, storage_options=self._options())
        except ValueError as error:
            raise StorageError(
                f"version {version} of {name} is missing: garbage collection removed it, or the table is damaged"
            ) from error

    def _exists(self, name: str) -> bool:
        return self.files.exists(f"{FOLDER}/{name}.lance/_versions")

    def _open_or_create(self, name: str, dimension: int, dtype: str) -> Any:
        import lancedb

        db = lancedb.connect(self._uri(None), storage_options=self._options())
        while not self._exists(name):
            if self._may_create(name):
                db.create_table(name, schema=_schema(dimension, dtype))
            else:
                time.sleep(WAIT_S)
        table = db.open_table(name)
        stored = table.schema.field("vector").type.list_size
        if stored != dimension:
            raise StorageError(f"{name} holds vectors of {stored} values, got {dimension}")
        return table

    def _may_create(self, name: str) -> bool:
        """Whether this writer has the claim to create a table.

        Of two that create it at once LanceDB lets the second overwrite what the first has written already. A claim
        whose owner has not made the table in time is taken over: the owner was killed.
        """
        path = f"{FOLDER}/{name}.claim"
        found = self.files.read_versioned(path)
        if found is not None and time.time() - float(found[0]) < CLAIM_S:
            return False
        try:
            self.files.swap(path, repr(time.time()).encode(), found[1] if found else None)
        except ConflictError:
            return False
        return not self._exists(name)

    def _uri(self, name: str | None) -> str:
        base = self.files.path(FOLDER) if self.files.is_local else self.files.url(FOLDER)
        return base if name is None else f"{base}/{name}.lance"

    def _options(self) -> dict[str, str] | None:
        return None if self.files.is_local else lance_options()


def lance_options() -> dict[str, str]:
    """Options of Lance's S3 client that it does not read from the environment by itself."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    options = {"region": region}
    if endpoint:
        options |= {"endpoint": endpoint, "allow_http": str(endpoint.startswith("http://")).lower()}
    return options


def table_name(signal: str, fingerprint: str) -> str:
    """Name of a signal's table. Raises StorageError for what a table cannot be called."""
    name = f"{signal}-{fingerprint}"
    if not all(c.isascii() and (c.isalnum() or c in "_-.") for c in name):
        raise StorageError(f"{name!r}: a vector table is named with letters, digits, '_', '-' and '.'")
    return name


def _schema(dimension: int, dtype: str) -> pa.Schema:
    # Without a declared key, concurrent merges of the same new ids double them (lance issue 8949).
    key = {"lance-schema:unenforced-primary-key": "true"}
    value = {"float32": pa.float32(), "float16": pa.float16()}[dtype]
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False, metadata=key),
            pa.field("shard", pa.string(), nullable=False),
            pa.field("vector", pa.list_(value, dimension), nullable=False),
        ]
    )


def _check_vectors(ids: Sequence[str], vectors: np.ndarray) -> None:
    if vectors.ndim != 2 or len(vectors) != len(ids) or vectors.shape[1] == 0:
        raise StorageError(f"{len(ids)} ids need vectors of shape ({len(ids)}, d), got {vectors.shape}")
    if len(set(ids)) != len(ids):
        raise StorageError(f"{len(ids) - len(set(ids))} ids are repeated; an id has one vector")
    bad = int((~np.isfinite(vectors).all(axis=1)).sum())
    if bad:
        raise StorageError(f"{bad} vectors hold NaN or infinite values; record them as signal_failures instead")


def _rows(schema: pa.Schema, ids: Sequence[str], shard: str, vectors: np.ndarray) -> pa.Table:
    kind = schema.field("vector").type
    with np.errstate(over="ignore"):
        flat = np.ascontiguousarray(vectors, dtype=kind.value_type.to_pandas_dtype())
    if not np.isfinite(flat).all():
        raise StorageError(f"a vector does not fit into {flat.dtype}; store them as float32")
    column = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), kind.list_size)
    return pa.table([pa.array(ids, pa.string()), pa.array([shard] * len(ids), pa.string()), column], schema=schema)


def _quoted(text: str) -> str:
    """A string literal of Lance's SQL."""
    if "\x00" in text:
        raise StorageError("a shard name cannot hold NUL")
    return "'" + text.replace("'", "''") + "'"


def _positions(dataset: Any, ids: Sequence[str]) -> np.ndarray:
    stored = dataset.to_table(columns=["id"])["id"]
    return np.flatnonzero(pc.is_in(stored, _strings(ids)).to_numpy(zero_copy_only=False))


def _strings(ids: Iterable[str]) -> pa.Array:
    return pa.array(sorted(set(ids)), pa.string())
