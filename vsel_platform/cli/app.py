"""The application: options that every command shares, and how errors reach the user."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from vsel_platform import __version__
from vsel_platform.config import Project
from vsel_platform.errors import VselError
from vsel_platform.pipeline.context import Context, ProgressCallback
from vsel_platform.project import open_project as open_checked

app = typer.Typer(
    name="vsel",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Data selection for visual instruction tuning: signals computed once, selections as views of them.",
    epilog="Exit codes: 0 done, 1 error, 2 project file or option, 3 data, 4 store, 5 model, 6 selection or "
    "verification, 7 query, 8 missing package, 9 evaluation.",
)

ProjectOption = Annotated[
    Path,
    typer.Option(
        "--project",
        "-p",
        envvar="VSEL_PROJECT",
        help="Project file; where there is no vsel.yaml, demo/vsel.yaml is taken if it is there.",
        show_default="vsel.yaml",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
DEFAULT_PROJECT = Path("vsel.yaml")
DEMO_PROJECT = Path("demo/vsel.yaml")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vsel {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of `vsel` itself."""


def has_project(path: Path) -> bool:
    """Whether `open_project` finds a file."""
    return path.is_file() or (path == DEFAULT_PROJECT and DEMO_PROJECT.is_file())


def open_project(path: Path) -> Project:
    """The project file named by the option, else ./vsel.yaml, else the demo's."""
    if path == DEFAULT_PROJECT and not path.is_file() and DEMO_PROJECT.is_file():
        return open_checked(DEMO_PROJECT)
    return open_checked(path)


def open_context(path: Path, progress: ProgressCallback | None = None) -> Context:
    """Context of a command."""
    project = open_project(path)
    return Context(project, run_id="cli", progress=progress) if progress else Context(project, run_id="cli")


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS, default=str).decode())
    sys.stdout.write("\n")


def say(text: str) -> None:
    """A line for people, on standard output."""
    typer.echo(text)


def main() -> None:
    """Entry point: errors of the engine are one message and an exit code, never a traceback."""
    from vsel_platform.cli import data, deployment, evaluation, queries, recipes, ui  # noqa: F401  (they register their commands)

    try:
        app(standalone_mode=True)
    except VselError as error:
        typer.echo(f"error: {error}", err=True)
        if os.environ.get("VSEL_TRACEBACK"):
            raise
        sys.exit(error.exit_code)
