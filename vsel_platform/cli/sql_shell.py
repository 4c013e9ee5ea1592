"""The interactive SQL shell, and how results are printed."""

import csv
import sys
from collections.abc import Callable
from typing import Any, Literal

import orjson
import typer

from vsel_platform.cli.app import print_json
from vsel_platform.errors import QueryError
from vsel_platform.storage.sql import QueryResult

Form = Literal["table", "json", "csv"]
UNCUT = 1_000_000
HELP = """Type one SELECT and end it with a semicolon.
.tables  lists the views, .columns NAME their columns, .help this text, .quit leaves."""


def print_result(result: QueryResult, form: Form) -> None:
    """A table for people, one JSON document, or CSV with a line of names (NULL is empty, nested values are JSON)."""
    if form == "json":
        rows = [dict(zip(result.columns, row, strict=True)) for row in result.rows]
        print_json({"columns": list(result.columns), "rows": rows, "truncated": result.truncated})
        return
    if form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(result.columns)
        writer.writerows([_csv_cell(value) for value in row] for row in result.rows)
    else:
        _print_table(result)
    if result.truncated:
        typer.echo(f"the first {len(result.rows):,} rows; --rows shows more", err=True)


def _print_table(result: QueryResult) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*[str(name) for name in result.columns], box=None, header_style="bold")
    for row in result.rows:
        table.add_row(*[_cell(value) for value in row])
    # Without a terminal there is no width to fit into, and what is cut would be lost.
    Console(soft_wrap=True, width=None if sys.stdout.isatty() else UNCUT).print(table)


def _csv_cell(value: Any) -> Any:
    if isinstance(value, list | tuple | dict):
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS, default=str).decode()
    return value


def _cell(value: Any) -> str:
    if value is None:
        return "NULL"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def shell(run: Callable[[str], None]) -> None:
    """Read statements from standard input until it ends; a refused one is reported and the shell goes on."""
    interactive = sys.stdin.isatty()
    if interactive:
        import readline  # noqa: F401  (line editing and history of input())

        typer.echo(HELP)
    buffer = ""
    while True:
        try:
            line = input(("vsel> " if not buffer else "  ... ") if interactive else "")
        except (EOFError, KeyboardInterrupt):
            break
        if not buffer and line.strip().startswith("."):
            if line.strip() == ".quit":
                break
            _command(line.strip(), run)
            continue
        buffer += line + "\n"
        if line.rstrip().endswith(";"):
            _attempt(buffer, run)
            buffer = ""
    if buffer.strip():
        _attempt(buffer, run)


def _attempt(text: str, run: Callable[[str], None]) -> None:
    try:
        run(text)
    except QueryError as error:
        typer.echo(f"error: {error}", err=True)


def _command(line: str, run: Callable[[str], None]) -> None:
    name, _, argument = line.partition(" ")
    if name == ".tables":
        _attempt("select distinct table_name from columns order by 1", run)
    elif name == ".columns":
        quoted = argument.strip().replace("'", "''")
        _attempt(f"select column_name, type, unit, description from columns where table_name = '{quoted}'", run)  # noqa: S608
    else:
        typer.echo(HELP)
