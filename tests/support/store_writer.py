"""Writers for crash and race tests of the store; also a program: store_writer.py ROOT WRITER COUNT [KILL_AT]."""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from vsel_platform.storage import parquet
from vsel_platform.storage.store import Store

PARTITION = {"dataset": "a"}
ROWS_PER_FILE = 2


def rows(marker: str, count: int = 5) -> pa.Table:
    """Quarantine rows that all say who wrote them, so that a mixture of two states can be seen."""
    return pa.table(
        {
            "position": pa.array(range(count), pa.int64()),
            "reason": [marker] * count,
            "detail": [f"{marker}-{n}" for n in range(count)],
            "row_json": pa.array([None] * count, pa.string()),
        }
    )


def publish(root: str, marker: str) -> str:
    """Publish five rows in three files; returns the data version."""
    parquet.ROWS_PER_FILE = ROWS_PER_FILE
    pointer = Store(root).publish("quarantine", PARTITION, rows(marker), run_id=marker)
    return pointer.data_version


def die_at(number: int) -> Callable[..., None]:
    """A function that kills this process without any clean-up at its `number`-th call."""
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return count


def die_before_request(number: int) -> None:
    """Kill this process before its `number`-th request that changes an S3 store."""
    from fsspec.asyn import sync_wrapper
    from s3fs import S3FileSystem

    check = die_at(number)
    original = S3FileSystem._call_s3

    async def counted(self: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        if method == "put_object":
            check()
        return await original(self, method, *args, **kwargs)

    S3FileSystem._call_s3 = counted
    S3FileSystem.call_s3 = sync_wrapper(counted)


def main() -> None:
    """Publish COUNT times as WRITER, or be killed at request KILL_AT."""
    root, writer, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if len(sys.argv) > 4:
        die_before_request(int(sys.argv[4]))
    for number in range(count):
        publish(root, f"{writer}{number}")


if __name__ == "__main__":
    main()
