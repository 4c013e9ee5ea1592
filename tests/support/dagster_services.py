"""Real Dagster processes for tests: started as a user would, stopped by id."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def environment(project_file: Path, home: Path, **more: str) -> dict[str, str]:
    """Environment of Dagster processes for a test project; automation is off unless asked for."""
    home.mkdir(parents=True, exist_ok=True)
    values = os.environ | {
        "VSEL_PROJECT": str(project_file),
        "DAGSTER_HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "VSEL_AUTOMATION": "off",
        "OMP_NUM_THREADS": "1",
    }
    values |= more
    subprocess.run([sys.executable, "-m", "automation.instance"], cwd=ROOT, env=values, check=True, capture_output=True)
    return values


@contextmanager
def service(command: list[str], env: dict[str, str], log: Path) -> Iterator[subprocess.Popen]:
    """A process in a group of its own, with the default SIGINT, ended with everything that it started."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  (before any thread)
        )
    try:
        yield process
    finally:
        for kind, patience_s in ((signal.SIGINT, 15), (signal.SIGKILL, 10)):
            if process.poll() is None:
                os.killpg(process.pid, kind)
                try:
                    process.wait(patience_s)
                except subprocess.TimeoutExpired:
                    continue


@contextmanager
def webserver(env: dict[str, str], log: Path) -> Iterator[str]:
    """The Dagster web server; gives its URL when it answers."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(Path(sys.executable).parent / "dagster-webserver")]
    command += ["-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port)]
    with service(command, env, log) as process:
        wait_for(
            lambda: _answers(url), 90, lambda: f"the web server does not answer: {log.read_text()[-2000:]}", process
        )
        yield url


@contextmanager
def daemon(env: dict[str, str], log: Path) -> Iterator[None]:
    """The Dagster daemon."""
    with service([str(Path(sys.executable).parent / "dagster-daemon"), "run", "-w", "workspace.yaml"], env, log):
        yield


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/server_info", timeout=2) as response:
            return response.status == 200
    except OSError:
        return False


def wait_for(condition: Any, seconds: float, complain: Any, process: subprocess.Popen | None = None) -> Any:
    """Poll until `condition()` is truthy; AssertionError with `complain()` after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            break
        if value := condition():
            return value
        time.sleep(0.5)
    raise AssertionError(complain())


def graphql(url: str, query: str, **variables: Any) -> dict[str, Any]:
    """Data of a GraphQL query; AssertionError with its errors."""
    body = orjson.dumps({"query": query, "variables": variables})
    request = urllib.request.Request(f"{url}/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        result = orjson.loads(response.read())
    assert "errors" not in result, result
    return result["data"]


RUNS = """query($tags: [ExecutionTag!]) { runsOrError(filter: {tags: $tags}, limit: 50) {
  ... on Runs { results { runId status jobName tags { key value } } } } }"""


def runs(url: str) -> list[dict[str, Any]]:
    """Runs of the instance, newest first."""
    return graphql(url, RUNS, tags=[])["runsOrError"]["results"]
