"""Commands that start the Dagster deployment as a user would, in child processes: ui, demo, run."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from vsel_platform.cli.app import DEFAULT_PROJECT, ProjectOption, app, open_context, say
from vsel_platform.errors import ConfigError, MissingPackageError, VselError

CANDIDATE_HOME = ".dagster"


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


def child_environment(root: Path, project: Path) -> dict[str, str]:
    """Environment of Dagster processes: home, project file, import path, one place for all of them."""
    if importlib.util.find_spec("dagster") is None:
        raise MissingPackageError("Dagster is not installed: pip install -c constraints.txt '.[dagster]'")
    home = Path(os.environ.get("DAGSTER_HOME") or root / CANDIDATE_HOME)
    environment = dict(os.environ)
    environment.update(
        DAGSTER_HOME=str(home.absolute()),
        VSEL_PROJECT=str(project.absolute()),
        PYTHONPATH=os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]),
    )
    command = [sys.executable, "-m", "automation.instance"]
    subprocess.run(command, cwd=root, env=environment, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
    return environment


def project_path(path: Path) -> Path:
    """The project file that the option means, as in `open_project`."""
    demo = Path("demo/vsel.yaml")
    return demo if path == DEFAULT_PROJECT and not path.is_file() and demo.is_file() else path


def run_in_dagster(project: Path, recipes: list[str], *, train: bool) -> int:
    """Drive recipes in a child process against the Dagster instance; returns its exit code."""
    root = deployment_root()
    command = [sys.executable, "-m", "automation.run", *recipes, *(["--train"] if train else [])]
    environment = child_environment(root, project_path(project))
    return subprocess.run(command, cwd=root, env=environment, check=False).returncode  # noqa: S603


def restore_signals() -> None:
    """Give a child the default SIGINT: Dagster copies its handler, and an ignored one cannot be stopped."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@app.command(epilog="Example: vsel ui --port 3001")
def ui(
    project: ProjectOption = DEFAULT_PROJECT,
    host: Annotated[
        str, typer.Option(help="Address to bind; the UI has no login, so keep it on loopback.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port.")] = 3000,
) -> None:
    """Open the Dagster UI with its daemon, on loopback, until interrupted."""
    root = deployment_root()
    environment = child_environment(root, project_path(project))
    dagster = Path(sys.executable).parent / "dagster"
    say(f"Dagster UI: http://{host}:{port}   (Ctrl-C stops it)")
    command = [str(dagster), "dev", "-w", "workspace.yaml", "-h", host, "-p", str(port)]
    process = subprocess.Popen(command, cwd=root, env=environment, preexec_fn=restore_signals)  # noqa: S603, PLW1509
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        code = process.wait(timeout=60)
    raise typer.Exit(max(code, 0))


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
