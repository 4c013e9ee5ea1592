"""What a query may contain. The check walks the tree that DuckDB's own parser makes of the text.

Everything is refused that is not known to be harmless: kinds of statements, of expressions and of table
references, functions, tables. A new construct of a later DuckDB is therefore refused until it is added here.
"""

import difflib
import re
from collections.abc import Callable, Collection
from typing import Any

import orjson

from vsel_platform.errors import QueryError
from vsel_platform.storage.catalog_schema import literal
from vsel_platform.storage.sql_functions import FUNCTIONS, TABLE_FUNCTIONS

MAX_CHARACTERS = 100_000
_CTE_NAME = re.compile(r"[A-Za-z_]\w*")
_EXPRESSIONS = frozenset(
    {"BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION",
     "LAMBDA", "LAMBDA_REF", "OPERATOR", "POSITIONAL_REFERENCE", "STAR", "SUBQUERY", "TYPE", "WINDOW"}
)  # fmt: skip
_NODES = frozenset(
    {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE",
     "BASE_TABLE", "TABLE_FUNCTION", "SUBQUERY", "JOIN", "PIVOT", "EXPRESSION_LIST", "EMPTY", "SHOW_REF",
     "ORDER_MODIFIER", "LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER", "DISTINCT_MODIFIER",
     # kinds of sort order, which carry the same key
     "ORDER_DEFAULT", "ASCENDING", "DESCENDING"}
)  # fmt: skip
_NO_EXPRESSIONS = ("cte_map", "cast_type", "type_info")  # walked before; descriptions of types


def check_query(sql: str, tables: Collection[str]) -> frozenset[str]:
    """The tables (of `tables`) that a query reads. Raises QueryError that names what is refused and why."""
    return _Check(tables).run(_parse(sql))


def _parse(sql: str) -> Any:
    """DuckDB's syntax tree of the one SELECT in `sql`."""
    import duckdb

    if len(sql) > MAX_CHARACTERS or "\x00" in sql:
        raise QueryError(f"a query has at most {MAX_CHARACTERS:,} characters and no NUL; this one has {len(sql):,}")
    # Not extract_statements(): it rewrites PRAGMA to SELECT and opens the files that IMPORT DATABASE names.
    try:
        with duckdb.connect(config={"enable_external_access": "false"}) as connection:
            row = connection.execute(f"SELECT json_serialize_sql({literal(sql)})").fetchone()
    except (duckdb.Error, UnicodeEncodeError) as error:
        raise QueryError(f"the query cannot be parsed: {error}") from error
    try:
        tree: dict[str, Any] = orjson.loads(row[0] if row else b"")
    except orjson.JSONDecodeError as error:
        raise QueryError("the query is nested too deeply") from error
    if tree["error"] and tree["error_type"] != "not implemented":
        place = f" (at character {int(tree['position']) + 1})" if "position" in tree else ""
        raise QueryError(f"the query cannot be parsed: {tree['error_message']}{place}")
    if tree["error"] or len(tree["statements"]) != 1:
        raise QueryError(
            "give exactly one SELECT statement: the catalog is read-only, and all others are refused "
            "(PIVOT as a statement, too: write FROM table PIVOT (... FOR ... IN (...)))"
        )
    return tree["statements"][0]["node"]


class _Check:
    def __init__(self, tables: Collection[str]) -> None:
        self.tables = {name.lower(): name for name in tables}
        self.used: set[str] = set()

    def run(self, tree: Any) -> frozenset[str]:
        try:
            self.walk(tree, frozenset())
        except RecursionError as error:
            raise QueryError("the query is nested too deeply") from error
        return frozenset(self.used)

    def walk(self, node: Any, ctes: frozenset[str]) -> None:
        """Check a part of the tree; `ctes` are the names that WITH defines at this place."""
        if isinstance(node, list):
            for item in node:
                self.walk(item, ctes)
        elif isinstance(node, dict):
            self.visit(node, ctes)

    def visit(self, node: dict[str, Any], ctes: frozenset[str]) -> None:
        if node.get("cte_map"):
            ctes = self.common_tables(node["cte_map"], ctes)
        if "class" in node:
            self.expression(node)
        elif isinstance(node.get("type"), str) and node["type"] not in _NODES:
            raise QueryError(f"{node['type']} is refused: it is not among the allowed parts of a query")
        handler: Callable[[dict[str, Any], frozenset[str]], None] | None = {
            "BASE_TABLE": self.base_table,
            "TABLE_FUNCTION": self.table_function,
            "RECURSIVE_CTE_NODE": self.recursive,
            "SHOW_REF": self.show,
        }.get(node["type"] if isinstance(node.get("type"), str) else "")
        if handler is not None:
            handler(node, ctes)
        else:
            self.children(node, ctes)

    def children(self, node: dict[str, Any], ctes: frozenset[str], skip: Collection[str] = ()) -> None:
        for name, child in node.items():
            if name not in _NO_EXPRESSIONS and name not in skip:
                self.walk(child, ctes)

    def common_tables(self, cte_map: dict[str, Any], ctes: frozenset[str]) -> frozenset[str]:
        """Names in scope after a WITH list; each query in it sees the ones before it."""
        for entry in cte_map["map"]:
            name = entry["key"]
            if not _CTE_NAME.fullmatch(name):
                raise QueryError(f"WITH name {name!r} is refused: use letters, digits and '_'")
            self.walk(entry["value"], ctes)
            ctes |= {name.lower()}
        return ctes

    def recursive(self, node: dict[str, Any], ctes: frozenset[str]) -> None:
        self.children(node, ctes, skip=("right",))
        self.walk(node["right"], ctes | {node["cte_name"].lower()})

    def expression(self, node: dict[str, Any]) -> None:
        kind = node["class"]
        if kind not in _EXPRESSIONS:
            text = "write values into the query" if kind == "PARAMETER" else "it is not an allowed expression"
            raise QueryError(f"{kind} is refused: {text}")
        if kind in ("FUNCTION", "WINDOW"):
            self.function(node, FUNCTIONS, "function")

    def function(self, node: dict[str, Any], allowed: Collection[str], what: str) -> None:
        name = str(node["function_name"]).lower()
        if name not in allowed or node.get("schema") not in (None, "", "main") or node.get("catalog"):
            near = difflib.get_close_matches(name, allowed, 3)
            hint = f"; similar allowed ones: {', '.join(near)}" if near else ""
            raise QueryError(
                f"{what} {node['function_name']} is refused: queries may call only functions that compute on "
                f"their arguments and stay small{hint}"
            )

    def base_table(self, node: dict[str, Any], ctes: frozenset[str]) -> None:
        name = node["table_name"].lower()
        schema = node.get("schema_name", "").lower()
        if schema == "" and not node.get("catalog_name") and name in ctes:
            self.children(node, ctes)
            return
        if name not in self.tables or schema not in ("", "main") or node.get("catalog_name"):
            label = ".".join(filter(None, (node.get("catalog_name"), node.get("schema_name"), node["table_name"])))
            raise QueryError(
                f"table {label!r} is refused: files, system tables and other databases cannot be read; "
                f"allowed: {', '.join(sorted(self.tables.values()))}"
            )
        self.used.add(self.tables[name])
        self.children(node, ctes)

    def table_function(self, node: dict[str, Any], ctes: frozenset[str]) -> None:
        call = node["function"]
        if call.get("class") != "FUNCTION":
            raise QueryError("this table function is refused: it is not a plain call")
        self.function(call, TABLE_FUNCTIONS, "table function")
        self.children(call, ctes)
        self.children(node, ctes, skip=("function",))

    def show(self, node: dict[str, Any], ctes: frozenset[str]) -> None:
        if not node.get("query"):
            raise QueryError("SHOW is refused: read the table `columns` to see every table and column")
        self.children(node, ctes)
