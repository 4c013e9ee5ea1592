"""SQL over the store, safe by construction.

A query is checked against what is allowed (sql_check.py) and then runs in a process of its own, on a connection
that can open nothing but the published files, under limits of memory, rows and time. Stopping it is killing the
process, so no query can outlast or outgrow its limits, whatever it does.
"""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson
import psutil
import pyarrow as pa

import vsel_platform
from vsel_platform.errors import QueryError
from vsel_platform.storage.catalog_schema import catalog_tables
from vsel_platform.storage.score_views import TABLE, view_names
from vsel_platform.storage.sql_check import check_query
from vsel_platform.storage.store import Store

POLL_S = 0.02
PREPARATION_S = 120.0
PROCESS_MIB = 512  # interpreter, Arrow and S3 or Lance client, beside what DuckDB may use


@dataclass(frozen=True, slots=True)
class QueryLimits:
    """What one query may use. What does not fit into memory is spilled to temporary files of `spill_mib`."""

    memory_mib: int = 1024
    rows: int = 10_000
    seconds: float = 30.0
    threads: int = 2
    spill_mib: int = 8192

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value <= 0:
                raise QueryError(f"limit {name} must be positive, got {value}")


@dataclass(frozen=True)
class QueryResult:
    """Result of a query; `truncated` says that there were more rows than the limit."""

    arrow: pa.Table
    truncated: bool

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self.arrow.column_names)

    @cached_property
    def rows(self) -> list[tuple[Any, ...]]:
        """Rows as tuples of Python values."""
        return list(zip(*(column.to_pylist() for column in self.arrow.columns), strict=True))


def run_query(
    store: Store,
    sql: str,
    *,
    limits: QueryLimits | None = None,
    as_of: str | None = None,
    manifest: dict[str, Any] | None = None,
) -> QueryResult:
    """Run one SELECT over the catalog (see `open_catalog` for `as_of` and `manifest`).

    Raises QueryError that says what was refused and what is allowed, what failed, or which limit was reached.
    """
    limits = limits or QueryLimits()
    # Whoever names no view of a score need not wait until the stored ones are found.
    scores = view_names(store.pointers(TABLE)) if "_scores" in sql.lower() else []
    used = check_query(sql, [*catalog_tables(), *scores])
    with tempfile.TemporaryDirectory(prefix="vsel-sql-") as name:
        request = {
            "root": store.files.root_url,
            "sql": sql,
            "tables": sorted(used),
            "as_of": as_of,
            "manifest": manifest,
            "limits": asdict(limits),
        }
        (Path(name) / "request.json").write_bytes(orjson.dumps(request))
        return _supervise(Path(name), limits)


def _supervise(work: Path, limits: QueryLimits) -> QueryResult:
    root = str(Path(vsel_platform.__file__).parents[1])
    # Without the current directory, in which anything may be called vsel_platform.
    path = {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]), "PYTHONSAFEPATH": "1"}
    environment = {**os.environ, **path}
    command = [sys.executable, "-m", "vsel_platform.storage.sql_worker", str(work)]
    with (work / "stderr").open("wb") as errors:
        process = subprocess.Popen(  # noqa: S603 - our own module, no shell
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors
        )
    try:
        _wait(process, work, limits)
    finally:
        process.kill()
        process.wait()
    return _result(process.returncode, work)


def _wait(process: "subprocess.Popen[bytes]", work: Path, limits: QueryLimits) -> None:
    """Wait for the end; QueryError (and the caller kills the process) when a limit is reached."""
    most = (limits.memory_mib + PROCESS_MIB) << 20
    deadline = time.monotonic() + PREPARATION_S
    ready = False
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        if not ready and (work / "ready").exists():
            ready, deadline = True, time.monotonic() + limits.seconds
        if time.monotonic() > deadline:
            if not ready:
                raise QueryError(f"the catalog could not be opened within {PREPARATION_S:g} s; is the store reachable?")
            raise QueryError(
                f"stopped after {limits.seconds:g} s; ask for fewer rows or columns, or raise the time limit"
            )
        try:
            used = watched.memory_info().rss
        except psutil.NoSuchProcess:
            return
        if used > most:
            raise QueryError(
                f"stopped at {used >> 20} MiB of memory (limit {limits.memory_mib} MiB); "
                "aggregate earlier, or raise the memory limit"
            )
        time.sleep(POLL_S)


def _result(code: int, work: Path) -> QueryResult:
    outcome = work / "outcome.json"
    if not outcome.exists():
        detail = (work / "stderr").read_text(errors="replace").strip().splitlines()[-1:] or ["no message"]
        raise QueryError(f"the query's process ended with {code}: {detail[0]}")
    report = orjson.loads(outcome.read_bytes())
    if report["error"] is not None:
        raise QueryError(report["error"])
    # A mapping stays valid when the directory is removed, and a large result is not copied.
    with pa.ipc.open_file(pa.memory_map(str(work / "result.arrow"))) as reader:
        return QueryResult(reader.read_all(), bool(report["truncated"]))
