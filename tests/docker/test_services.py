"""The services of compose.yaml as plain processes: the same commands, entry point and health checks."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml
from dagster_services import ROOT, free_port, graphql, service, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
DOCKER = ROOT / "docker"
ROW = {
    "id": "1",
    "task": "text",
    "conversations": [{"from": "human", "value": "Say one."}, {"from": "gpt", "value": "One."}],
}
LAUNCH = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
STATUS = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
LOCATIONS = """{ workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError {
  __typename ... on PythonError { message } } } } } }"""


@dataclass(frozen=True)
class Deployment:
    """Running services: URL of the UI, the code server's process, environment of each role."""

    url: str
    code_server: subprocess.Popen[bytes]
    environments: dict[str, dict[str, str]]

    def is_healthy(self, role: str) -> bool:
        """Result of the image's health check of a role."""
        command = ["sh", str(DOCKER / "healthcheck.sh")]
        return subprocess.run(command, env=self.environments[role], capture_output=True, check=False).returncode == 0


def is_open(port: str) -> bool:
    """Whether something listens on a port of this machine."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", int(port))) == 0


def location_state(url: str) -> str | None:
    """What the web server makes of the code location: a type name, or the error; None while it is loading."""
    (entry,) = graphql(url, LOCATIONS)["workspaceOrError"]["locationEntries"]
    assert entry["name"] == "vsel_platform"
    state = entry["locationOrLoadError"]
    return state and state.get("message", state["__typename"])


def command(name: str, ports: dict[str, str], workspace: Path) -> list[str]:
    """A service's command with the paths and ports of this machine, behind the image's entry point."""
    words = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"][name]["command"]
    places = {"/app": str(ROOT), "/app/docker/workspace.yaml": str(workspace), "0.0.0.0": "127.0.0.1"}
    return ["sh", str(DOCKER / "entrypoint.sh"), *(ports.get(word, places.get(word, word)) for word in words)]


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    directory = tmp_path_factory.mktemp("deployment")
    (directory / "rows.json").write_text(json.dumps([ROW, {**ROW, "id": "2", "conversations": []}]))
    dataset = {"source": "rows.json", "task": {"column": "task"}, "max_quarantine_rate": 1}
    (directory / "vsel.yaml").write_text(yaml.safe_dump({"name": "x", "datasets": {"texts": dataset}}))
    ports = {"4000": str(free_port()), "3000": str(free_port())}
    workspace = directory / "workspace.yaml"
    text = (DOCKER / "workspace.yaml").read_text()
    workspace.write_text(text.replace("code-server", "127.0.0.1").replace("4000", ports["4000"]))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    base = os.environ | {
        "PATH": path,
        "PYTHONPATH": str(ROOT),
        "DAGSTER_HOME": str(directory / "home"),
        "VSEL_PROJECT": str(directory / "vsel.yaml"),
        "VSEL_AUTOMATION": "off",
        "VSEL_CODE_SERVER_PORT": ports["4000"],
        "VSEL_WEBSERVER_PORT": ports["3000"],
    }
    roles = ("code-server", "webserver", "daemon")
    environments = {role: base | {"VSEL_ROLE": role} for role in roles}
    with ExitStack() as stack:
        logs = {role: directory / f"{role}.log" for role in roles}
        processes = {
            role: stack.enter_context(service(command(role, ports, workspace), environments[role], logs[role]))
            for role in roles
        }
        running = Deployment(f"http://127.0.0.1:{ports['3000']}", processes["code-server"], environments)
        for role in roles:
            # A health check costs more than a look at the port, and the services need the processor to start.
            port = {"code-server": ports["4000"], "webserver": ports["3000"]}.get(role)
            wait_for(
                lambda role=role, port=port: (port is None or is_open(port)) and running.is_healthy(role),
                90,
                lambda role=role: f"{role} is not healthy: {logs[role].read_text()[-3000:]}",
                processes[role],
            )
        wait_for(lambda: location_state(running.url) == "RepositoryLocation", 60, lambda: location_state(running.url))
        yield running


def test_the_web_server_gets_its_assets_from_the_code_server(deployment: Deployment) -> None:
    nodes = graphql(deployment.url, "{ assetNodes { assetKey { path } } }")["assetNodes"]
    assert {"raw_annotations", "selected_subset"} <= {node["assetKey"]["path"][-1] for node in nodes}


def test_a_run_from_the_queue_is_executed_by_the_code_server(deployment: Deployment) -> None:
    selector = {"repositoryLocationName": "vsel_platform", "repositoryName": "__repository__", "jobName": "ingest"}
    tags = [{"key": "dagster/partition", "value": "texts"}]
    params = {"selector": selector, "runConfigData": {}, "executionMetadata": {"tags": tags}}
    launched = graphql(deployment.url, LAUNCH, params=params)["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched

    def ended() -> str:
        status = graphql(deployment.url, STATUS, id=launched["run"]["runId"])["runOrError"]["status"]
        return status if status in ("SUCCESS", "FAILURE", "CANCELED") else ""

    assert wait_for(ended, 120, lambda: "the run did not end") == "SUCCESS"


def test_a_stopped_code_server_is_not_healthy_and_leaves_nothing_behind(deployment: Deployment) -> None:
    os.killpg(deployment.code_server.pid, signal.SIGTERM)
    assert deployment.code_server.wait(60) is not None
    assert not deployment.is_healthy("code-server")
    wait_for(
        lambda: not living(deployment.code_server.pid), 30, lambda: f"still there: {living(deployment.code_server.pid)}"
    )


def living(group: int) -> list[str]:
    """Command lines of the processes of a group; those that have ended and wait to be reaped do not count."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found
