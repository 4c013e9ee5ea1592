"""The instance on a real PostgreSQL: runs are stored there, and the daemon reselects when data change."""

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest
from dagster_services import daemon, environment, free_port, runs, wait_for, webserver
from small_project import project_values, row, small_rows, write_rows, write_small_project

pytestmark = [pytest.mark.integration, pytest.mark.timeout(420)]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    """A PostgreSQL server of the test's own, on a free port and loopback."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    assert programs, "PostgreSQL is missing: apt-get install -y postgresql"
    programs = programs[-1]
    directory = Path("/tmp") / f"vsel-pg-{os.getpid()}"
    directory.mkdir(mode=0o700)
    user = None
    if os.geteuid() == 0:
        account = pwd.getpwnam("postgres")
        os.chown(directory, account.pw_uid, account.pw_gid)
        user = "postgres"
    port = free_port()
    data = directory / "data"

    def run(*command):
        subprocess.run([str(c) for c in command], user=user, check=True, capture_output=True, cwd="/", timeout=60)

    run(programs / "initdb", "-D", data, "-U", "dagster", "--auth=trust", "--no-sync")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={directory} -c fsync=off"
    run(programs / "pg_ctl", "-D", data, "-w", "-l", directory / "log", "-o", options, "start")
    try:
        run(programs / "createdb", "-h", "127.0.0.1", "-p", port, "-U", "dagster", "dagster")
        yield {
            "DAGSTER_PG_HOST": "127.0.0.1",
            "DAGSTER_PG_PORT": str(port),
            "DAGSTER_PG_USERNAME": "dagster",
            "DAGSTER_PG_PASSWORD": "none",
            "DAGSTER_PG_DB": "dagster",
        }
    finally:
        run(programs / "pg_ctl", "-D", data, "-m", "immediate", "stop")
        subprocess.run(["rm", "-rf", str(directory)], check=True)


def test_changed_source_is_reselected_by_the_daemon(postgres, tmp_path, tmp_path_factory):
    """Sensors, queue and run workers for real: append a row, and the selection follows by itself."""
    models = tmp_path_factory.mktemp("models")
    file = write_small_project(tmp_path, models)
    values = project_values(tmp_path, models)
    values["automation"] = {"source_interval_s": 5, "reconcile_interval_s": 5}
    values["recipes"] = {"random": {"dataset": "shapes", "method": "random", "budget": {"percent": 25}}}
    file.write_text(json.dumps(values))
    env = environment(file, tmp_path / "home", VSEL_AUTOMATION="on", **postgres)
    assert "postgres" in (tmp_path / "home" / "dagster.yaml").read_text()
    done = subprocess.run(
        [sys.executable, "-m", "automation.run", "random"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert not list((tmp_path / "home").rglob("*.db")), "nothing may be stored in SQLite"
    pointer = tmp_path / "store" / "tables" / "selected_subset" / "recipe=random" / "pointer.json"
    before = json.loads(pointer.read_text())
    with webserver(env, tmp_path / "web.log") as url, daemon(env, tmp_path / "daemon.log"):
        first = len(runs(url))
        assert first >= 2
        write_rows(tmp_path, [*small_rows(), *(row(i) for i in range(500, 520))])
        wait_for(
            lambda: json.loads(pointer.read_text())["version"] != before["version"],
            240,
            lambda: f"{runs(url)[:4]} {(tmp_path / 'daemon.log').read_text()[-3000:]}",
        )
        after = json.loads(pointer.read_text())
    assert after["rows"] == before["rows"] + 5
