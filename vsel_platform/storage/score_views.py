"""One view for each score: the rows of `method_scores`, with the score's own values as columns of their types."""

import re
from collections.abc import Collection, Iterable

from vsel_platform.storage.catalog_schema import SQL_TYPES, all_columns, catalog_tables, literal, sql_type
from vsel_platform.storage.pointers import Pointer
from vsel_platform.tables import TABLES, Column, TableSpec

TABLE = "method_scores"
OWN_COLUMNS = "columns"
"""Key of a pointer's metadata: the score's own columns, each as name, type, unit and description."""
_NAME = re.compile(r"[a-z][a-z0-9_]*_scores")
_COLUMN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ALWAYS = ("dataset", "variant", "sample_id", "task", "image_id", "value")


def view_names(pointers: Iterable[Pointer]) -> list[str]:
    """Names of the views of all scores that have a state among `pointers`."""
    scores = {pointer.partition["score"] for pointer in pointers if pointer.table == TABLE}
    return sorted(name for score in scores if is_view(name := f"{score}_scores"))


def is_view(name: str) -> bool:
    """Whether a table of this name can be a view of a score."""
    return bool(_NAME.fullmatch(name)) and name not in catalog_tables()


def asked(pointers: Iterable[Pointer], tables: Collection[str] | None) -> list[str]:
    """Views to make: those of all scores, or of `tables` (of a score without a state, too)."""
    return view_names(pointers) if tables is None else sorted(filter(is_view, tables))


def of_view(name: str, pointers: Iterable[Pointer]) -> list[Pointer]:
    """States that a view shows."""
    return [p for p in pointers if p.table == TABLE and f"{p.partition['score']}_scores" == name]


def spec_of(name: str, pointers: Iterable[Pointer]) -> TableSpec:
    """The view's columns: those of every score, and the own ones as its states declare them."""
    base = {column.name: column for column in all_columns(TABLES[TABLE])}
    own: dict[str, Column] = {}
    for pointer in of_view(name, pointers):
        for column, kind, unit, description in pointer.metadata.get(OWN_COLUMNS, ()):
            if column not in base and _COLUMN.fullmatch(column) and kind in SQL_TYPES:
                own.setdefault(column, Column(column, kind, description, unit, True))
    columns = (*(base[column] for column in _ALWAYS), *own.values())
    score = name.removesuffix("_scores")
    return TableSpec(name, f"The score {score} of every row, with its own values.", (), (), columns)


def view_sql(spec: TableSpec, source: str) -> str:
    """SELECT of the view's columns from a SELECT of `method_scores`."""
    own = [
        f'CAST(json_extract_string(details, {literal("$." + c.name)}) AS {sql_type(c.type)}) AS "{c.name}"'
        for c in spec.columns[len(_ALWAYS) :]
    ]
    return f"SELECT {', '.join([*_ALWAYS, *own])} FROM ({source})"  # noqa: S608 - names are identifiers
