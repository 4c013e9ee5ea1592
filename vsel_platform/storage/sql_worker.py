"""The process that runs one query: `python -m vsel_platform.storage.sql_worker DIRECTORY` (started by sql.py)."""

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa

from vsel_platform.errors import VselError

if TYPE_CHECKING:
    import duckdb

BATCH_ROWS = 2048


def main(work: Path) -> None:
    """Read `request.json`, run the query, write `result.arrow` and `outcome.json`."""
    with suppress(OSError):  # when the machine runs out of memory, this process goes first
        Path("/proc/self/oom_score_adj").write_text("1000")
    import duckdb

    request = orjson.loads((work / "request.json").read_bytes())
    outcome: dict[str, Any] = {"error": None, "truncated": False}
    try:
        connection = open_locked(request, work)
        (work / "ready").touch()
        outcome["truncated"] = _run(connection, request, work / "result.arrow")
    except duckdb.Error as error:
        outcome["error"] = _explain(error, request["limits"])
    except VselError as error:
        outcome["error"] = str(error)
    (work / "outcome.part").write_bytes(orjson.dumps(outcome))
    (work / "outcome.part").replace(work / "outcome.json")


def open_locked(request: dict[str, Any], work: Path) -> "duckdb.DuckDBPyConnection":
    """The catalog with the limits of the request, unable to open anything but the files of its views."""
    from vsel_platform.storage.catalog import catalog_and_paths
    from vsel_platform.storage.catalog_schema import literal
    from vsel_platform.storage.store import Store

    store = Store(request["root"])
    connection, paths = catalog_and_paths(
        store, as_of=request["as_of"], manifest=request["manifest"], tables=request["tables"]
    )
    limits = request["limits"]
    connection.execute(f"SET memory_limit = '{limits['memory_mib']}MiB'")
    connection.execute(f"SET threads = {limits['threads']}")
    connection.execute(f"SET temp_directory = {literal(str(work / 'spill'))}")
    connection.execute(f"SET max_temp_directory_size = '{limits['spill_mib']}MiB'")
    # The check of the query is the wall; this is the moat: no other file can be opened, no setting changed.
    connection.execute(f"SET allowed_paths = [{', '.join(map(literal, paths))}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _run(connection: "duckdb.DuckDBPyConnection", request: dict[str, Any], target: Path) -> bool:
    """Write the result up to the row limit; True if there were more rows."""
    limit = request["limits"]["rows"]
    most_bytes = request["limits"]["memory_mib"] << 20
    left, size = limit, 0
    reader = connection.execute(request["sql"]).to_arrow_reader(BATCH_ROWS)
    with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_file(sink, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch.slice(0, left))
            size += batch.nbytes
            if size > most_bytes:
                raise VselError(f"the result is larger than {most_bytes >> 20} MiB; select fewer columns or rows")
            if batch.num_rows > left:
                return True
            left -= batch.num_rows
    return False


def _explain(error: Exception, limits: dict[str, Any]) -> str:
    import duckdb

    text = str(error).strip()
    if isinstance(error, duckdb.OutOfMemoryException):
        return f"the query needs more than {limits['memory_mib']} MiB of memory; aggregate earlier or raise the limit"
    return f"the query failed: {text}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
