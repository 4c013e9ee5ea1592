"""`vsel ui` and where runs are recorded: a home per project, one UI per home, and no port of somebody else's."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dagster_services import free_port

from vsel_platform.cli import ui
from vsel_platform.cli.deployment import child_environment, dagster_home, deployment_root
from vsel_platform.errors import ConfigError, VselError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def no_home(monkeypatch):
    monkeypatch.delenv("DAGSTER_HOME", raising=False)


@pytest.fixture
def project(tmp_path):
    file = tmp_path / "vsel.yaml"
    file.write_text("name: p\ndatasets: {a: {source: a.json}}\n")
    return file


def test_every_project_has_a_home_of_its_own(tmp_path, monkeypatch):
    assert dagster_home(tmp_path / "vsel.yaml") == tmp_path / ".vsel" / "dagster"
    monkeypatch.chdir(tmp_path)
    assert dagster_home(Path("demo/vsel.yaml")) == tmp_path / "demo" / ".vsel" / "dagster"


def test_a_home_that_is_named_wins(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    assert dagster_home(Path("vsel.yaml")) == tmp_path / "home"


def test_the_home_has_the_settings_of_the_repository(project):
    environment = child_environment(deployment_root(), project)
    home = Path(environment["DAGSTER_HOME"])
    assert home == project.parent / ".vsel" / "dagster"
    assert (home / "dagster.yaml").read_bytes() == (ROOT / "dagster.yaml").read_bytes()


def test_a_refused_home_is_told_without_a_traceback(project, monkeypatch):
    monkeypatch.setenv("DAGSTER_PG_HOST", "db.example")
    with pytest.raises(VselError, match="PostgreSQL for Dagster needs") as caught:
        child_environment(deployment_root(), project)
    assert "Traceback" not in str(caught.value)


def test_a_taken_port_is_refused_and_a_free_one_is_not():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        with pytest.raises(ConfigError, match="use --port N"):
            ui.refuse_taken_port("127.0.0.1", server.getsockname()[1])
    ui.refuse_taken_port("127.0.0.1", free_port())
    with pytest.raises(ConfigError, match="cannot be used"):
        ui.refuse_taken_port("192.0.2.1", 3000)


def test_a_second_ui_of_an_instance_names_the_first(tmp_path):
    with ui.only_one(tmp_path / "home") as lock:
        assert lock.ended == 0
        lock.write("http://127.0.0.1:3000", lock.ended)
        with (
            pytest.raises(ConfigError, match=r"already runs: http://127\.0\.0\.1:3000"),
            ui.only_one(tmp_path / "home"),
        ):
            pass
    with ui.only_one(tmp_path / "home") as lock:
        assert lock.ended == 0, "nobody knows when one ended that was killed"
        lock.write("", 17.5)
    with ui.only_one(tmp_path / "home") as lock:
        assert lock.ended == 17.5


def test_the_services_keep_the_lock_when_their_command_is_killed(tmp_path):
    with ui.only_one(tmp_path) as lock:
        descriptor = lock.file.fileno()
        service = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[descriptor])
    with pytest.raises(ConfigError, match="already runs"), ui.only_one(tmp_path):
        pass
    service.communicate(b"\n", timeout=30)
    with ui.only_one(tmp_path):
        pass


def test_a_damaged_lock_file_is_no_obstacle(tmp_path):
    (tmp_path / ui.LOCK).write_text("{")
    with ui.only_one(tmp_path) as lock:
        assert (lock.ended, lock.url) == (0, "")


def test_a_home_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="set DAGSTER_HOME"), ui.only_one(tmp_path / "file" / "home"):
        pass


def a_daemon_is_seen(project, since):
    try:
        child_environment(ROOT, project, f"--refuse-daemon-since={since}")
    except VselError as error:
        assert "already works on the instance" in str(error)
        return True
    return False


@pytest.mark.integration
@pytest.mark.timeout(180)
def test_the_command_serves_once_without_a_warning_and_ends_its_services_on_sigterm(project, tmp_path):
    from dagster_services import service, wait_for

    port, log = free_port(), tmp_path / "ui.log"
    environment = os.environ | {"VSEL_PROJECT": str(project), "VSEL_AUTOMATION": "off", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", "from vsel_platform.cli import main; main()", "ui", "--port"]
    with service([*command, str(port)], environment, log) as process:
        wait_for(lambda: "Serving dagster-webserver" in log.read_text(), 90, log.read_text, process)
        for other, words in ((port, f"already runs: http://127.0.0.1:{port}"), (free_port(), "already runs")):
            again = subprocess.run(
                [*command, str(other)],
                env=environment,
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert again.returncode == ConfigError.exit_code
            assert words in again.stderr
        wait_for(lambda: a_daemon_is_seen(project, since=0), 60, log.read_text, process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
        ui.refuse_taken_port("127.0.0.1", port)
        with ui.only_one(dagster_home(project)) as lock:
            assert a_daemon_is_seen(project, since=0)
            assert not a_daemon_is_seen(project, since=lock.ended), "the next UI is not refused for the last one"
    assert "superseded" not in log.read_text()
    assert "Found a dagster instance configuration" not in log.read_text()
    assert (project.parent / ".vsel" / "dagster" / "dagster.yaml").is_file()
    with ui.only_one(dagster_home(project)) as lock:
        assert time.time() - 60 < lock.ended <= time.time()
