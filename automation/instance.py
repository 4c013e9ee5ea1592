"""Prepares DAGSTER_HOME: `python -m automation.instance` puts the instance settings there and prints its path."""

import argparse
import fcntl
import os
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from vsel_platform.errors import ConfigError, VselError

if TYPE_CHECKING:
    from dagster import DagsterInstance

ROOT = Path(__file__).resolve().parent.parent
POSTGRES_VARIABLES = (
    "DAGSTER_PG_HOST",
    "DAGSTER_PG_PORT",
    "DAGSTER_PG_USERNAME",
    "DAGSTER_PG_PASSWORD",
    "DAGSTER_PG_DB",
)
# Dagster puts this tag on every run that it launches through a code server.
CODE_SERVER_TAG = ".dagster/grpc_info"
# The UI hides tags with this prefix: as chips they make the rows of the runs list several lines high.
TARGET_TAG = ".dagster/vsel_target"
WANT_TAG = ".dagster/vsel_want"
DRIVER_TAG = ".dagster/vsel_driver"
# A daemon gives a sign of life every 30 s.
DAEMON_IS_ALIVE_S = 60


def settings_file(root: Path) -> Path:
    """The instance settings to use: dagster.postgres.yaml if DAGSTER_PG_HOST is set, else dagster.yaml.

    Raises ConfigError if the file is missing, or if some but not all of the DAGSTER_PG_* variables are set.
    """
    missing = [name for name in POSTGRES_VARIABLES if not os.environ.get(name)]
    if 0 < len(missing) < len(POSTGRES_VARIABLES):
        raise ConfigError(
            f"PostgreSQL for Dagster needs {', '.join(POSTGRES_VARIABLES)}; not set: {', '.join(missing)}. "
            "Set them, or unset all of them to use SQLite"
        )
    file = root / ("dagster.yaml" if missing else "dagster.postgres.yaml")
    if not file.is_file():
        raise ConfigError(f"no instance settings at {file}; run this in a checkout of the repository")
    return file


def prepare_home(root: Path, home: Path) -> Path:
    """Create `home` with a copy of the instance settings of `root`, and return it.

    The copy is replaced as a whole, so that services may start at the same time; edit the file in `root`, not
    the copy. Raises ConfigError for a `home` that is relative or cannot be made, and for what `settings_file` refuses.
    """
    if not home.is_absolute():
        raise ConfigError(f"DAGSTER_HOME={home} is relative; Dagster needs an absolute path")
    content = settings_file(root).read_bytes()
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{home} cannot be made ({error}); set DAGSTER_HOME to a directory of your own") from error
    target = home / "dagster.yaml"
    if target.is_file() and target.read_bytes() == content:
        return home
    handle, name = tempfile.mkstemp(prefix=".tmp-", dir=home)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return home


def initialise(home: Path) -> None:
    """Create the SQLite files of a new home, one process at a time.

    Services that start together would create them together, and Dagster's migrations do not survive that.
    PostgreSQL is left to the services, which may start before it answers.
    """
    if any(os.environ.get(name) for name in POSTGRES_VARIABLES):
        return
    with (home / ".initialise.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = home / ".initialised"
        if not done.exists():
            from dagster import DagsterInstance

            with DagsterInstance.from_config(str(home)) as instance:
                instance.get_runs_count()
                instance.get_dynamic_partitions("shards")
            done.touch()


def fail_orphaned_runs(instance: "DagsterInstance") -> list[str]:
    """Mark the runs as failed that died together with their code server; returns their ids.

    To be called before the only code server of an instance starts: what an earlier one launched cannot be alive
    then, but Dagster would wait for it and keep its place in the queue and its pool slot. What a selection needs
    is asked for again by the reconcile sensor. Runs in a process of their own (`vsel run`) are left alone.
    """
    from dagster import DagsterRunStatus, RunsFilter

    lost = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
    found = [run for run in instance.get_runs(RunsFilter(statuses=lost)) if CODE_SERVER_TAG in run.tags]
    for run in found:
        if run.status == DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run)
        else:
            instance.report_run_failed(run, "The code server was stopped while this run was in progress.")
    return sorted(run.run_id for run in found)


def driver_name(pid: int | None = None) -> str:
    """Names a process for good: host, process id, and when it started (ids are used again)."""
    process = psutil.Process(pid)
    return f"{socket.gethostname()}/{process.pid}/{process.create_time():.2f}"


def fail_runs_of_dead_drivers(instance: "DagsterInstance") -> list[str]:
    """Mark the runs as failed whose driver (`vsel run`, `vsel demo`) was killed on this host; returns their ids.

    Such a run lives in its driver's process and nobody else watches it: it would keep its pool slot, and the next
    run would wait for that for ever.
    """
    from dagster import DagsterRunStatus, RunsFilter

    lost = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
    found = [run for run in instance.get_runs(RunsFilter(statuses=lost)) if _driver_is_dead(run.tags)]
    for run in found:
        instance.report_run_failed(run, "The process that drove this run was killed.")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return sorted(run.run_id for run in found)


def _driver_is_dead(tags: Mapping[str, str]) -> bool:
    name = tags.get(DRIVER_TAG, "")
    host, _, rest = name.partition("/")
    pid = rest.partition("/")[0]
    if host != socket.gethostname() or not pid.isdigit():
        return False
    try:
        return driver_name(int(pid)) != name
    except psutil.NoSuchProcess:
        return True


def refuse_second_daemon(instance: "DagsterInstance", since: float) -> None:
    """Raise ConfigError if a daemon of the instance is alive: two would launch every run twice.

    Signs of life before `since` (seconds since 1970) are those of a daemon that is known to have ended.
    """
    seen = max((beat.timestamp for beat in instance.get_daemon_heartbeats().values()), default=0.0)
    age = time.time() - seen
    if seen > since and age < DAEMON_IS_ALIVE_S:
        raise ConfigError(
            f"a Dagster daemon already works on the instance in {instance.root_directory} (its last sign of life was "
            f"{age:.0f} s ago); stop it first, or if it was killed wait a minute"
        )


def main(arguments: list[str]) -> int:
    """Prepare the directory that DAGSTER_HOME names."""
    parser = argparse.ArgumentParser(prog="python -m automation.instance", description=main.__doc__)
    parser.add_argument(
        "--fail-orphaned-runs",
        action="store_true",
        help="also mark runs as failed that died with the code server; only where that server is not running",
    )
    parser.add_argument(
        "--refuse-daemon-since",
        type=float,
        metavar="SECONDS",
        help="fail if a daemon of the instance gave a sign of life after this moment (seconds since 1970)",
    )
    options = parser.parse_args(arguments)
    try:
        home = _home_from_environment()
        print(prepare_home(ROOT, home))
        initialise(home)
        _look_at_instance(home, options)
    except VselError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def _home_from_environment() -> Path:
    named = os.environ.get("DAGSTER_HOME")
    if not named:
        raise ConfigError(
            "DAGSTER_HOME is not set; `vsel run` and `vsel ui` set it to .vsel/dagster beside the project file"
        )
    return Path(named)


def _look_at_instance(home: Path, options: argparse.Namespace) -> None:
    if not options.fail_orphaned_runs and options.refuse_daemon_since is None:
        return
    from dagster import DagsterInstance

    with DagsterInstance.from_config(str(home)) as instance:
        if options.refuse_daemon_since is not None:
            refuse_second_daemon(instance, options.refuse_daemon_since)
        for run_id in fail_orphaned_runs(instance) if options.fail_orphaned_runs else []:
            sys.stderr.write(f"run {run_id} died with the code server and is marked as failed\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
