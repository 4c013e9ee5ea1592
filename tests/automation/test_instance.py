import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._config import process_config
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.config import pg_config
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._core.utils import make_new_run_id
from dagster._daemon.types import DaemonHeartbeat
from dagster_postgres.utils import pg_url_from_config

from automation.instance import (
    CODE_SERVER_TAG,
    DRIVER_TAG,
    POSTGRES_VARIABLES,
    ROOT,
    driver_name,
    fail_orphaned_runs,
    fail_runs_of_dead_drivers,
    main,
    prepare_home,
    refuse_second_daemon,
    settings_file,
)
from vsel_platform.errors import ConfigError


@pytest.fixture(autouse=True)
def no_postgres(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in POSTGRES_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def postgres(monkeypatch: pytest.MonkeyPatch) -> None:
    values = ("db.example", "5433", "vsel", "secret", "vsel_dagster")
    for name, value in zip(POSTGRES_VARIABLES, values, strict=True):
        monkeypatch.setenv(name, value)


def test_home_gets_the_sqlite_settings(tmp_path: Path) -> None:
    home = prepare_home(ROOT, tmp_path / "a" / "home")
    assert home == tmp_path / "a" / "home"
    assert (home / "dagster.yaml").read_bytes() == (ROOT / "dagster.yaml").read_bytes()
    assert [file.name for file in home.iterdir()] == ["dagster.yaml"]


def test_home_gets_the_postgres_settings_when_a_host_is_named(tmp_path: Path, postgres: None) -> None:
    home = prepare_home(ROOT, tmp_path)
    assert (home / "dagster.yaml").read_bytes() == (ROOT / "dagster.postgres.yaml").read_bytes()


def test_changed_settings_replace_the_copy_and_keep_what_else_is_there(tmp_path: Path) -> None:
    root, home = tmp_path / "root", tmp_path / "home"
    root.mkdir()
    (root / "dagster.yaml").write_text("nux: {enabled: false}\n")
    prepare_home(root, home)
    (home / "history.db").write_text("runs")
    (root / "dagster.yaml").write_text("nux: {enabled: true}\n")
    prepare_home(root, home)
    assert (home / "dagster.yaml").read_text() == "nux: {enabled: true}\n"
    assert (home / "history.db").read_text() == "runs"


def test_an_unchanged_copy_is_left_alone(tmp_path: Path) -> None:
    prepare_home(ROOT, tmp_path)
    before = (tmp_path / "dagster.yaml").stat()
    prepare_home(ROOT, tmp_path)
    after = (tmp_path / "dagster.yaml").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_services_that_start_together_see_whole_settings(tmp_path: Path) -> None:
    home = tmp_path / "home"
    contents = [b"# one\n" * 20_000, b"# another\n" * 20_000]
    roots = [tmp_path / "one", tmp_path / "another"]
    for root, content in zip(roots, contents, strict=True):
        root.mkdir()
        (root / "dagster.yaml").write_bytes(content)

    def start(root: Path) -> bytes:
        return (prepare_home(root, home) / "dagster.yaml").read_bytes()

    with ThreadPoolExecutor(4) as pool:
        seen = set(pool.map(start, roots * 50))
    assert seen <= set(contents)
    assert [file.name for file in home.iterdir()] == ["dagster.yaml"]


@pytest.mark.parametrize("missing", POSTGRES_VARIABLES)
def test_a_half_described_database_is_refused(missing: str, postgres: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(missing)
    with pytest.raises(ConfigError, match=f"not set: {missing}"):
        settings_file(ROOT)


def test_a_relative_home_is_refused() -> None:
    with pytest.raises(ConfigError, match="absolute"):
        prepare_home(ROOT, Path("home"))


def test_a_root_without_settings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no instance settings at .*dagster\.yaml"):
        prepare_home(tmp_path, tmp_path / "home")


def test_the_module_prints_the_directory_it_prepared(tmp_path: Path) -> None:
    environment = {**os.environ, "DAGSTER_HOME": str(tmp_path / "home")}
    result = subprocess.run(
        [sys.executable, "-m", "automation.instance"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == f"{tmp_path / 'home'}\n"
    assert (tmp_path / "home" / "dagster.yaml").is_file()


def test_the_module_says_what_is_wrong_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "relative")
    assert main([]) == ConfigError.exit_code
    assert capsys.readouterr().err.startswith("DAGSTER_HOME=relative is relative")


def test_the_home_is_never_guessed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    assert main([]) == ConfigError.exit_code
    assert capsys.readouterr().err.startswith("DAGSTER_HOME is not set")


def test_a_home_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/home cannot be made .* set DAGSTER_HOME"):
        prepare_home(ROOT, tmp_path / "file" / "home")


@pytest.mark.parametrize(
    ("age_s", "ended_s_ago", "refused"), [(5, None, True), (5, 60, True), (5, 2, False), (300, None, False)]
)
def test_a_daemon_is_alive_while_it_gives_signs_of_life(age_s: float, ended_s_ago: float | None, refused: bool) -> None:
    now = time.time()
    with DagsterInstance.local_temp() as instance:
        refuse_second_daemon(instance, 0)
        instance.add_daemon_heartbeat(DaemonHeartbeat(now - age_s, "SENSOR", "1"))
        since = 0.0 if ended_s_ago is None else now - ended_s_ago
        if refused:
            with pytest.raises(ConfigError, match=r"a Dagster daemon already works on the instance in .*\d+ s ago"):
                refuse_second_daemon(instance, since)
        else:
            refuse_second_daemon(instance, since)


def test_the_module_refuses_a_second_daemon_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(prepare_home(ROOT, tmp_path)))
    with DagsterInstance.get() as instance:
        instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), "SENSOR", "1"))
    assert main([]) == 0
    assert main(["--refuse-daemon-since=0"]) == ConfigError.exit_code
    assert "already works" in capsys.readouterr().err


def test_dagster_loads_the_sqlite_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(prepare_home(ROOT, tmp_path)))
    with DagsterInstance.get() as instance:
        assert instance.get_concurrency_config().run_queue_config.max_concurrent_runs == 2
        assert instance.get_concurrency_config().pool_config.default_pool_limit == 1
        assert instance.get_concurrency_config().pool_config.pool_granularity.value == "op"
        assert instance.run_monitoring_enabled
        assert instance.run_monitoring_settings["free_slots_after_run_end_seconds"] == 5
        assert instance.run_retries_enabled
        assert not instance.run_retries_retry_on_asset_or_op_failure
        assert not instance.telemetry_enabled
        assert not instance.nux_enabled


def test_dagster_takes_the_postgres_connection_from_the_environment(tmp_path: Path, postgres: None) -> None:
    storage = InstanceRef.from_dir(str(prepare_home(ROOT, tmp_path))).storage_data
    assert (storage.module_name, storage.class_name) == ("dagster_postgres", "DagsterPostgresStorage")
    resolved = process_config(pg_config(), storage.config_dict)
    assert resolved.success
    assert pg_url_from_config(resolved.value) == "postgresql://vsel:secret@db.example:5433/vsel_dagster"


def test_both_files_differ_in_nothing_but_the_storage() -> None:
    sqlite, postgres = (yaml.safe_load((ROOT / name).read_text()) for name in ("dagster.yaml", "dagster.postgres.yaml"))
    storage = postgres.pop("storage")
    assert sqlite == postgres
    assert all(list(value) == ["env"] for value in storage["postgres"]["postgres_db"].values())


def add_run(instance: DagsterInstance, status: DagsterRunStatus, *, by_code_server: bool = True) -> str:
    run = DagsterRun(
        job_name="signals",
        run_id=make_new_run_id(),
        status=status,
        tags={CODE_SERVER_TAG: "{}"} if by_code_server else {},
    )
    return instance.add_run(run).run_id


def status_of(instance: DagsterInstance, run_id: str) -> DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def test_the_tag_of_runs_of_a_code_server_is_the_one_dagster_sets() -> None:
    assert CODE_SERVER_TAG == GRPC_INFO_TAG


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (DagsterRunStatus.STARTING, DagsterRunStatus.FAILURE),
        (DagsterRunStatus.STARTED, DagsterRunStatus.FAILURE),
        (DagsterRunStatus.CANCELING, DagsterRunStatus.CANCELED),
    ],
)
def test_runs_that_died_with_the_code_server_are_ended(before: DagsterRunStatus, after: DagsterRunStatus) -> None:
    with DagsterInstance.ephemeral() as instance:
        run_id = add_run(instance, before)
        assert fail_orphaned_runs(instance) == [run_id]
        assert status_of(instance, run_id) == after
        assert fail_orphaned_runs(instance) == []


@pytest.mark.parametrize("status", [DagsterRunStatus.NOT_STARTED, DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE])
def test_waiting_and_finished_runs_are_left_alone(status: DagsterRunStatus) -> None:
    with DagsterInstance.ephemeral() as instance:
        run_id = add_run(instance, status)
        assert fail_orphaned_runs(instance) == []
        assert status_of(instance, run_id) == status


def test_a_run_in_a_process_of_its_own_is_left_alone() -> None:
    with DagsterInstance.ephemeral() as instance:
        run_id = add_run(instance, DagsterRunStatus.STARTED, by_code_server=False)
        assert fail_orphaned_runs(instance) == []
        assert status_of(instance, run_id) == DagsterRunStatus.STARTED


def add_driven_run(instance: DagsterInstance, driver: str) -> str:
    run = DagsterRun(
        job_name="signals", run_id=make_new_run_id(), status=DagsterRunStatus.STARTED, tags={DRIVER_TAG: driver}
    )
    return instance.add_run(run).run_id


def ended_process() -> str:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        return driver_name(process.pid)


def test_a_run_whose_driver_was_killed_is_failed_and_gives_its_pool_slot_back() -> None:
    with DagsterInstance.local_temp() as instance:
        instance.event_log_storage.set_concurrency_slots("gpu", 1)
        run_id = add_driven_run(instance, ended_process())
        assert instance.event_log_storage.claim_concurrency_slot("gpu", run_id, "step").is_claimed
        assert fail_runs_of_dead_drivers(instance) == [run_id]
        assert status_of(instance, run_id) == DagsterRunStatus.FAILURE
        assert instance.event_log_storage.claim_concurrency_slot("gpu", "next", "step").is_claimed
        assert fail_runs_of_dead_drivers(instance) == []


def test_a_driver_with_a_used_process_id_is_another_driver() -> None:
    with DagsterInstance.ephemeral() as instance:
        run_id = add_driven_run(instance, driver_name().rpartition("/")[0] + "/1.00")
        assert fail_runs_of_dead_drivers(instance) == [run_id]


@pytest.mark.parametrize(
    "driver", [driver_name(), "another.host/1/1.00", "", "nonsense"], ids=["living", "distant", "none", "other"]
)
def test_runs_of_living_and_distant_drivers_are_left_alone(driver: str) -> None:
    with DagsterInstance.ephemeral() as instance:
        run_id = add_driven_run(instance, driver)
        assert fail_runs_of_dead_drivers(instance) == []
        assert status_of(instance, run_id) == DagsterRunStatus.STARTED


def test_the_module_ends_orphaned_runs_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(prepare_home(ROOT, tmp_path)))
    with DagsterInstance.get() as instance:
        run_id = add_run(instance, DagsterRunStatus.STARTED)
        assert main([]) == 0
        assert status_of(instance, run_id) == DagsterRunStatus.STARTED
        assert main(["--fail-orphaned-runs"]) == 0
        assert status_of(instance, run_id) == DagsterRunStatus.FAILURE
    assert run_id in capsys.readouterr().err


def test_processes_that_start_together_on_a_new_home_all_come_up(tmp_path: Path) -> None:
    home = tmp_path / "home"
    code = "from dagster import DagsterInstance; DagsterInstance.get().get_runs_count()"
    script = f'"{sys.executable}" -m automation.instance && "{sys.executable}" -W ignore -c "{code}"'
    values = os.environ | {"DAGSTER_HOME": str(home), "PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen(["sh", "-c", script], cwd=ROOT, env=values, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(4)
    ]
    for process in started:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output.decode()[-2000:]
