"""Commands that use the Dagster deployment as a user would, in child processes: demo, run; and their environment."""

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from vsel_platform.cli.app import DEFAULT_PROJECT, DEMO_PROJECT, app, open_context, say
from vsel_platform.errors import ConfigError, MissingPackageError, VselError

HOME = ".vsel/dagster"


def deployment_root() -> Path:
    """The repository: the directory with definitions.py, from the current directory or this installation."""
    here = [Path.cwd(), *Path.cwd().parents, Path(__file__).resolve().parents[2]]
    for directory in here:
        if (directory / "definitions.py").is_file() and (directory / "workspace.yaml").is_file():
            return directory
    raise ConfigError(
        "the Dagster deployment (definitions.py, workspace.yaml) is not here: it is in the repository, not in the "
        "installed library; clone it and run there, or use `vsel run --engine`"
    )


def dagster_home(project: Path) -> Path:
    """Where the runs of a project are recorded: DAGSTER_HOME, else .vsel/dagster beside the project file."""
    named = os.environ.get("DAGSTER_HOME")
    return Path(named).absolute() if named else project.resolve().parent / HOME


def child_environment(root: Path, project: Path, *arguments: str) -> dict[str, str]:
    """Environment of Dagster processes for a project; its home is made and gets the settings of dagster.yaml.

    `arguments` go to `automation.instance`. Raises MissingPackageError without Dagster, VselError with the reason if
    the home is refused.
    """
    if importlib.util.find_spec("dagster") is None:
        raise MissingPackageError("Dagster is not installed: pip install -c constraints.txt '.[dagster]'")
    environment = dict(os.environ)
    environment.update(
        DAGSTER_HOME=str(dagster_home(project)),
        VSEL_PROJECT=str(project.absolute()),
        PYTHONPATH=os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]),
    )
    command = [sys.executable, "-m", "automation.instance", *arguments]
    done = subprocess.run(command, cwd=root, env=environment, check=False, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        raise VselError(done.stderr.strip())
    return environment


def project_path(path: Path) -> Path:
    """The project file that the option means, as in `open_project`."""
    is_fallback = path == DEFAULT_PROJECT and not path.is_file() and DEMO_PROJECT.is_file()
    return DEMO_PROJECT if is_fallback else path


def run_in_dagster(project: Path, recipes: list[str], *, train: bool) -> int:
    """Drive recipes in a child process against the Dagster instance; returns its exit code."""
    root = deployment_root()
    command = [sys.executable, "-m", "automation.run", "--with-parent", *recipes, *(["--train"] if train else [])]
    environment = child_environment(root, project_path(project))
    return subprocess.run(command, cwd=root, env=environment, check=False).returncode  # noqa: S603


@app.command(epilog="Example: vsel demo --directory demo")
def demo(
    directory: Annotated[Path, typer.Option(help="Where the demo's project file and store go.")] = Path("demo"),
) -> None:
    """The whole walk on the embedded data set: ingest, signals, PreSel, fine-tuning, evaluation, new rows."""
    from vsel_platform.cli.progress import console_progress
    from vsel_platform.demo.project import append_demo_rows, write_demo_project

    start = time.monotonic()
    project = write_demo_project(directory)
    say(f"project file: {project}  ({time.monotonic() - start:.0f} s)")
    code = run_in_dagster(project, [], train=True)
    if code:
        raise VselError(f"the demo stopped with exit code {code}; the message above says why")
    from vsel_platform.demo.tour import where_to_look

    context = open_context(project, console_progress())
    added = append_demo_rows(project)
    say(f"\n{added} new rows were appended to the source file; reselecting")
    again = time.monotonic()
    code = run_in_dagster(project, [], train=False)
    if code:
        raise VselError(f"the reselection stopped with exit code {code}; the message above says why")
    say(where_to_look(context, project, reselection_s=time.monotonic() - again, total_s=time.monotonic() - start))
