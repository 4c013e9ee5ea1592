"""What the catalog shows beside the tables of tables.py, and the columns of everything in it."""

from collections.abc import Iterable

from vsel_platform.storage.vectors import VECTOR_SIGNALS
from vsel_platform.tables import TABLES, Column, TableSpec

SQL_TYPES = {
    "string": "VARCHAR", "bool": "BOOLEAN", "int32": "INTEGER", "int64": "BIGINT", "float32": "FLOAT",
    "float64": "DOUBLE",
}  # fmt: skip
VECTOR_COLUMNS = (
    Column("fingerprint", "string", "Encoder and settings that made the vector."),
    Column("id", "string", "image_id or sample_id of the content.", "sha256 hex"),
    Column("shard", "string", "Shard that brought the content in."),
    Column("vector", "list<float32>", "The embedding."),
)
_PARTITION_TEXT = {
    "dataset": "Dataset of the project file.",
    "shard": "Shard of the content.",
    "recipe": "Recipe of the project file.",
    "fingerprint": "Model, weights and settings that made the signal.",
    "mode": "default, or released (as the paper's code behaves).",
    "score": "Score, as `vsel methods` names it.",
    "variant": "default, or a hash of options that differ from the defaults and of a method's own file.",
    "clustering": "Space, number of clusters (0: square root of the rows) and seed.",
    "signal": "Signal that was computed.",
}
LINEAGE = TableSpec(
    "lineage",
    "The published state of every partition, and what it was made from.",
    (),
    ("table_name", "partition"),
    (
        Column("table_name", "string", "Table or artifact."),
        Column("partition", "string", "Partition, as name=value pairs joined by '/'."),
        Column("version", "string", "Version of the pointer; sortable by time."),
        Column("previous", "string", "Version that it replaced.", nullable=True),
        Column("created_at", "string", "When it was published.", "ISO 8601, UTC"),
        Column("data_version", "string", "Hash of the rows."),
        Column("fingerprint", "string", "Model, weights and settings that made it."),
        Column("input_fingerprint", "string", "Hash of what it read."),
        Column("code_version", "string", "Version of the code that made it."),
        Column("run_id", "string", "Run that published it."),
        Column("quality", "string", "ok, or which checks failed."),
        Column("rows", "int64", "Rows.", "rows"),
        Column("bytes", "int64", "Size of its files.", "bytes"),
        Column("inputs", "list<string>", "States that it read, as table/partition@version."),
    ),
)
COLUMNS = TableSpec(
    "columns",
    "Every column of every table here.",
    (),
    ("table_name", "column_name"),
    (
        Column("table_name", "string", "Table."),
        Column("column_name", "string", "Column."),
        Column("type", "string", "SQL type."),
        Column("unit", "string", "Unit; empty if it has none."),
        Column("description", "string", "Meaning."),
    ),
)


def catalog_tables() -> list[str]:
    """Names of everything that can be queried."""
    return [*TABLES, *VECTOR_SIGNALS, LINEAGE.name, COLUMNS.name]


def all_columns(spec: TableSpec) -> list[Column]:
    """Partition columns of a table, then its own."""
    partition = [Column(name, "string", _PARTITION_TEXT.get(name, "Partition.")) for name in spec.partition_by]
    return [*partition, *spec.columns]


def column_rows(views: Iterable[TableSpec] = ()) -> list[dict[str, str]]:
    """Rows of the table `columns`; `views` are those that a store has besides."""
    specs = [(name, all_columns(spec)) for name, spec in TABLES.items()]
    specs += [(name, list(VECTOR_COLUMNS)) for name in VECTOR_SIGNALS]
    specs += [(spec.name, list(spec.columns)) for spec in (*views, LINEAGE, COLUMNS)]
    return [
        {
            "table_name": name,
            "column_name": column.name,
            "type": sql_type(column.type),
            "unit": column.unit,
            "description": column.description,
        }
        for name, columns in specs
        for column in columns
    ]


def sql_type(name: str) -> str:
    """DuckDB's name of a column type of tables.py."""
    return f"{sql_type(name[5:-1])}[]" if name.startswith("list<") else SQL_TYPES[name]


def literal(text: str) -> str:
    """A string literal of DuckDB's SQL."""
    return "'" + text.replace("'", "''") + "'"
