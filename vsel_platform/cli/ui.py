"""`vsel ui`: the Dagster UI with its daemon, once per Dagster instance."""

import fcntl
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any

import orjson
import typer

from vsel_platform.cli.app import DEFAULT_PROJECT, ProjectOption, app, open_project, say
from vsel_platform.cli.child_group import run_group
from vsel_platform.cli.deployment import child_environment, dagster_home, deployment_root, project_path
from vsel_platform.errors import ConfigError

LOCK = ".vsel-ui.lock"
# `dagster dev` names `dg dev` as its successor, a package of its own that only does the same; its advice would be read
# as a fault of this platform. The filter is this process's: the services that it starts still warn.
SUPERSEDED = "ignore:Function `dev_command` is superseded"


@app.command(epilog="Example: vsel ui --port 3001")
def ui(
    project: ProjectOption = DEFAULT_PROJECT,
    host: Annotated[
        str, typer.Option(help="Address to bind; the UI has no login, so keep it on loopback.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port.", min=1, max=65535)] = 3000,
) -> None:
    """Open the Dagster UI with its daemon, on loopback, until interrupted."""
    open_project(project)
    root, file = deployment_root(), project_path(project)
    url = f"http://{host}:{port}"
    with only_one(dagster_home(file)) as lock:
        refuse_taken_port(host, port)
        environment = child_environment(root, file, f"--refuse-daemon-since={lock.ended}")
        say(f"Dagster UI: {url}   (Ctrl-C stops it)")
        command = [sys.executable, "-W", SUPERSEDED, "-m", "dagster", "dev"]
        command += ["-w", str(root / "workspace.yaml"), "-h", host, "-p", str(port)]
        lock.write(url, lock.ended)
        # From the home: in a directory with another dagster.yaml Dagster would warn of that one.
        code = run_group(command, environment, Path(environment["DAGSTER_HOME"]), [lock.file.fileno()])
        lock.write("", time.time())
    raise typer.Exit(code)


@dataclass
class Lock:
    """The lock file of an instance's UI: the address of the one that runs, and when the last one ended [s since 1970].

    A child that inherits the descriptor keeps the lock for as long as it lives.
    """

    file: IO[bytes]

    @property
    def ended(self) -> float:
        """When the last UI of this instance ended; 0 if there was none."""
        return float(self._read().get("ended", 0))

    @property
    def url(self) -> str:
        """Address of the UI that holds the lock; empty while it starts."""
        return str(self._read().get("url", ""))

    def write(self, url: str, ended: float) -> None:
        """Replace what the file says."""
        self.file.seek(0)
        self.file.truncate()
        self.file.write(orjson.dumps({"url": url, "ended": ended}))
        self.file.flush()

    def _read(self) -> dict[str, Any]:
        self.file.seek(0)
        try:
            found = orjson.loads(self.file.read())
        except orjson.JSONDecodeError:
            return {}
        return found if isinstance(found, dict) else {}


@contextmanager
def only_one(home: Path) -> Iterator[Lock]:
    """Hold the lock of an instance's UI. Raises ConfigError with the address of the UI that holds it."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        opened = (home / LOCK).open("a+b")
    except OSError as error:
        raise ConfigError(f"{home} cannot be used ({error}); set DAGSTER_HOME to a directory of your own") from error
    with opened as file:
        lock = Lock(file)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            where = lock.url or "it is just starting"
            raise ConfigError(f"the UI of this Dagster instance ({home}) already runs: {where}") from error
        yield lock


def refuse_taken_port(host: str, port: int) -> None:
    """Raise ConfigError if nothing new can listen at an address: the UI there would be somebody else's."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(address)
    except OSError as error:
        raise ConfigError(f"{host}:{port} cannot be used ({error}); use --port N with another port") from error
