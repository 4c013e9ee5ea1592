"""The store as DuckDB views made from its pointers. DuckDB only reads: nothing is ever written through it."""

import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from vsel_platform.errors import NotMaterializedError, StorageError
from vsel_platform.storage import score_views
from vsel_platform.storage.catalog_schema import (
    COLUMNS,
    LINEAGE,
    VECTOR_COLUMNS,
    all_columns,
    column_rows,
    literal,
    sql_type,
)
from vsel_platform.storage.files import TEMPORARY_PREFIX
from vsel_platform.storage.pointers import Pointer, history, parse_moment, parse_reference, read_version
from vsel_platform.storage.pointers import as_of as pointer_as_of
from vsel_platform.storage.store import Store
from vsel_platform.storage.vectors import VECTOR_SIGNALS, VectorStore
from vsel_platform.tables import TABLES, Column, TableSpec

if TYPE_CHECKING:
    import duckdb


def open_catalog(
    store: Store,
    *,
    as_of: str | None = None,
    manifest: dict[str, Any] | None = None,
    tables: Collection[str] | None = None,
) -> "duckdb.DuckDBPyConnection":
    """An in-memory DuckDB connection with a view per table, embeddings, `lineage` and `columns`.

    Partition columns stand before the table's own. `as_of` (ISO 8601) shows the store as it was then;
    `manifest` (of a selection) shows exactly the states that the selection read; `tables` restricts the views
    that are made. Raises StorageError if a state was removed by garbage collection.
    """
    return catalog_and_paths(store, as_of=as_of, manifest=manifest, tables=tables)[0]


def catalog_and_paths(
    store: Store,
    *,
    as_of: str | None = None,
    manifest: dict[str, Any] | None = None,
    tables: Collection[str] | None = None,
) -> "tuple[duckdb.DuckDBPyConnection, list[str]]":
    """`open_catalog`, and the paths of all files that its views open."""
    import duckdb

    pointers = snapshot(store, as_of=as_of, manifest=manifest, tables=tables)
    files = {file.path: file.bytes for p in pointers if p.table in TABLES for file in p.files}
    connection = duckdb.connect(config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"})
    connection.execute("SET python_enable_replacements = false")
    if store.files.is_local:
        base = store.files.path("")
    else:
        from vsel_platform.storage.duckdb_files import PROTOCOL, PublishedFiles

        connection.register_filesystem(PublishedFiles(store.files, files))
        base = f"{PROTOCOL}://"
    _make_views(connection, pointers, base, tables)
    for signal in VECTOR_SIGNALS:
        if tables is None or signal in tables:
            _make_vector_view(connection, store, signal, [p for p in pointers if p.table == signal])
    return connection, sorted({name for path in files for name in (base + path, escape_glob(base + path))})


def snapshot(
    store: Store,
    *,
    as_of: str | None = None,
    manifest: dict[str, Any] | None = None,
    tables: Collection[str] | None = None,
) -> list[Pointer]:
    """The pointers that a catalog shows: current ones, those of a moment, or those that a manifest names.

    Raises StorageError for a moment that is no time, in the future, or before the store held anything.
    """
    if as_of is not None and manifest is not None:
        raise StorageError("give a time or a manifest, not both")
    if as_of is not None and parse_moment(as_of) > datetime.now(UTC):
        raise StorageError(f"{as_of} is in the future; leave the time out to read the store as it is")
    stored = {*TABLES, *VECTOR_SIGNALS}
    wanted = None if tables is None or LINEAGE.name in tables else stored.intersection(tables)
    if wanted is not None and (COLUMNS.name in (tables or ()) or score_views.asked([], tables)):
        wanted.add(score_views.TABLE)
    if manifest is not None:
        states = [parse_reference(reference) for reference in _inputs(manifest)]
        return [
            read_version(store.files, key, version)
            for key, version in states
            if wanted is None or key.partition("/")[0] in wanted
        ]
    names: Iterable[str | None] = [None] if wanted is None else sorted(wanted)
    current = [pointer for name in names for pointer in store.pointers(name)]
    if as_of is None:
        return current
    then = [found for p in current if (found := pointer_as_of(store.files, p.key, as_of)) is not None]
    if not then:
        _require_store_at(store, as_of)
    return then


def _require_store_at(store: Store, moment: str) -> None:
    """Raise StorageError if nothing had been published at a moment: that the answer is empty would say nothing."""
    first = min(
        (min(p.created_at for p in history(store.files, pointer.key)) for pointer in store.pointers(None)), default=None
    )
    if first is None:
        raise StorageError("the store is empty: nothing has been published yet, at no time")
    if parse_moment(moment) < datetime.fromisoformat(first):
        raise StorageError(f"the store was empty at {moment}; its first state is of {first}")


def _inputs(manifest: dict[str, Any]) -> list[str]:
    inputs = manifest.get("inputs")
    if not isinstance(inputs, list) or not all(isinstance(item, str) for item in inputs):
        raise StorageError("the manifest has no list `inputs` of states (table/partition=value@version)")
    return sorted(set(inputs))


def _make_views(
    connection: "duckdb.DuckDBPyConnection",
    pointers: list[Pointer],
    base: str,
    tables: Collection[str] | None,
) -> None:
    for spec in TABLES.values():
        if tables is None or spec.name in tables:
            own = [pointer for pointer in pointers if pointer.table == spec.name]
            connection.execute(f"CREATE VIEW {spec.name} AS {view_sql(spec, own, base)}")
            _comment(connection, "VIEW", spec.name, spec.description, all_columns(spec))
    for name in score_views.asked(pointers, tables):
        states = score_views.of_view(name, pointers)
        spec = score_views.spec_of(name, states)
        source = view_sql(TABLES[score_views.TABLE], states, base)
        connection.execute(f"CREATE VIEW {name} AS {score_views.view_sql(spec, source)}")
        _comment(connection, "VIEW", name, spec.description, list(spec.columns))
    described = [score_views.spec_of(name, pointers) for name in score_views.view_names(pointers)]
    for spec, rows in ((LINEAGE, [_lineage_row(p) for p in pointers]), (COLUMNS, column_rows(described))):
        if tables is None or spec.name in tables:
            _make_table(connection, spec, rows)


def _make_table(connection: "duckdb.DuckDBPyConnection", spec: TableSpec, rows: Sequence[Mapping[str, Any]]) -> None:
    # As text: registered tables and parameters make DuckDB import pandas, which takes longer than a query.
    names = ", ".join(f"line.{name}" for name in spec.column_names)
    shape = orjson.dumps([{c.name: sql_type(c.type) for c in spec.columns}]).decode()
    lines = f"unnest(from_json({literal(orjson.dumps(rows).decode())}, {literal(shape)}))"
    query = f"SELECT {names} FROM (SELECT {lines} AS line)"  # noqa: S608 - literals are quoted
    connection.execute(f"CREATE TABLE {spec.name} AS {query}")
    _comment(connection, "TABLE", spec.name, spec.description, list(spec.columns))


def view_sql(spec: TableSpec, pointers: Iterable[Pointer], base: str) -> str:
    """SELECT over the files of the given states; partition columns are constants of each branch.

    A column that a state of an earlier version of the platform does not have is NULL there.
    """
    columns = all_columns(spec)
    empty = ", ".join(f"CAST(NULL AS {sql_type(c.type)}) AS {c.name}" for c in columns)
    branches = [f"SELECT {empty} WHERE false"]
    for pointer in pointers:
        if pointer.files:
            constants = "".join(f"{literal(pointer.partition[name])} AS {name}, " for name in spec.partition_by)
            files = ", ".join(literal(escape_glob(base + file.path)) for file in pointer.files)
            source = f"read_parquet([{files}], hive_partitioning = false)"
            branches.append(f"SELECT {constants}* FROM {source}")  # noqa: S608 - quoted above
    if len(branches) == 1:
        return branches[0]
    names = ", ".join(column.name for column in columns)
    return f"SELECT {names} FROM ({' UNION ALL BY NAME '.join(branches)})"  # noqa: S608 - names of the code


def _make_vector_view(
    connection: "duckdb.DuckDBPyConnection", store: Store, signal: str, pointers: list[Pointer]
) -> None:
    """View over Lance tables: per fingerprint the newest version that a pointer names, and its shards."""
    states: dict[str, tuple[str, int, list[str]]] = {}
    for pointer in pointers:
        if "lance_table" in pointer.metadata:
            name, version = pointer.metadata["lance_table"], int(pointer.metadata["lance_version"])
            _, newest, shards = states.get(pointer.partition["fingerprint"], (name, 0, []))
            shards = [*shards, pointer.partition["shard"]]
            states[pointer.partition["fingerprint"]] = (name, max(newest, version), shards)
    branches = []
    for number, (fingerprint, (name, version, shards)) in enumerate(sorted(states.items())):
        dataset = VectorStore(store.files.root_url).dataset(name, version)
        if dataset is None:
            raise NotMaterializedError(f"the vector table {name} that a pointer of {signal} names is missing")
        connection.register(f"lance_{signal}_{number}", dataset)
        wanted = ", ".join(map(literal, shards))
        branches.append(
            f"SELECT {literal(fingerprint)} AS fingerprint, id, shard, vector::FLOAT[] AS vector "  # noqa: S608
            f"FROM lance_{signal}_{number} WHERE shard IN ({wanted})"
        )
    empty = ", ".join(f"CAST(NULL AS {sql_type(c.type)}) AS {c.name}" for c in VECTOR_COLUMNS)
    # A registered dataset belongs to the connection's temporary schema, and so does a view of it.
    query = " UNION ALL ".join(branches) or f"SELECT {empty} WHERE false"
    connection.execute(f"CREATE TEMP VIEW {signal} AS {query}")
    _comment(connection, "VIEW", signal, VECTOR_SIGNALS[signal], list(VECTOR_COLUMNS))


def publish_catalog_file(store: Store, path: Path | None = None) -> Path:
    """Write `catalog.duckdb`: the present views over the Parquet files, for any DuckDB client of version 1.5.

    It holds no data and is replaced as a whole, so that a shell which has the old one open keeps working.
    Embeddings are left out (they need Lance). Raises StorageError for a store on S3.
    """
    import duckdb

    if not store.files.is_local:
        raise StorageError("catalog.duckdb is for stores in a directory; on S3 use `vsel sql`")
    target = path or Path(store.files.path("catalog.duckdb"))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}.duckdb")
    try:
        with duckdb.connect(str(temporary)) as connection:
            _make_views(connection, snapshot(store), store.files.path(""), None)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def _lineage_row(pointer: Pointer) -> dict[str, Any]:
    names = [c.name for c in LINEAGE.columns if c.name not in ("table_name", "partition", "bytes")]
    return {
        "table_name": pointer.table,
        "partition": pointer.key.partition("/")[2],
        "bytes": sum(file.bytes for file in pointer.files),
        **{name: getattr(pointer, name) for name in names},
    }


def _comment(
    connection: "duckdb.DuckDBPyConnection", kind: str, name: str, description: str, columns: list[Column]
) -> None:
    connection.execute(f"COMMENT ON {kind} {name} IS {literal(description)}")
    for column in columns:
        text = f"{column.description} [{column.unit}]" if column.unit else column.description
        connection.execute(f'COMMENT ON COLUMN {name}."{column.name}" IS {literal(text)}')


def escape_glob(path: str) -> str:
    """A path that DuckDB reads as it is, with no pattern in it."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in path)
