"""The interactive SQL shell, and how results are printed."""

import sys
from collections.abc import Callable
from typing import Any

import typer

from vsel_platform.cli.app import print_json
from vsel_platform.errors import QueryError
from vsel_platform.storage.sql import QueryResult

HELP = """Type one SELECT and end it with a semicolon.
.tables  lists the views, .columns NAME their columns, .help this text, .quit leaves."""


def print_result(result: QueryResult, *, json: bool) -> None:
    """A table for people, or one JSON document."""
    if json:
        rows = [dict(zip(result.columns, row, strict=True)) for row in result.rows]
        print_json({"columns": list(result.columns), "rows": rows, "truncated": result.truncated})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*[str(name) for name in result.columns], box=None, header_style="bold")
    for row in result.rows:
        table.add_row(*[_cell(value) for value in row])
    Console(soft_wrap=True).print(table)
    if result.truncated:
        typer.echo(f"the first {len(result.rows):,} rows; --rows shows more", err=True)


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
