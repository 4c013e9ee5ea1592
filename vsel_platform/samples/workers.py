"""Worker processes of an ingest: `python -m vsel_platform.samples.workers`, spoken to through pipes.

Plain child processes: they end when the parent does (their input closes), and the parent's main module is not
imported again.
"""

import os
import queue
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from vsel_platform.config import DatasetSettings
from vsel_platform.errors import DataError, VselError
from vsel_platform.samples.batches import BatchProcessor, Processed
from vsel_platform.samples.columnar import ValueBatch
from vsel_platform.samples.framing import (
    pack_batch,
    pack_processed,
    read_parts,
    unpack_batch,
    unpack_processed,
    write_parts,
)
from vsel_platform.samples.raw import RawBatch

BATCHES_PER_WORKER = 2
# Memory of one batch is used again for the next instead of being given back and asked for anew.
KEEP_MEMORY = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(256 << 20),
}
COMMAND = ("-m", "vsel_platform.samples.workers")
PACKAGE_ROOT = Path(__file__).resolve().parents[2]


class WorkerPool:
    """Child processes that turn raw batches into tables; results come back in order."""

    def __init__(self, settings: DatasetSettings, workers: int) -> None:
        self._threads = ThreadPoolExecutor(workers)
        self._ahead = workers * BATCHES_PER_WORKER
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._children = [_start(settings) for _ in range(workers)]
        for child in self._children:
            self._idle.put(child)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            for child in self._children:
                child.kill()
        self._threads.shutdown(cancel_futures=True)
        for child in self._children:
            _stop(child)

    def process(self, batches: Iterator[RawBatch | ValueBatch], processor: BatchProcessor) -> Iterator[Processed]:
        """Results of the batches, in their order; batches of parsed rows are processed here."""
        pending: deque[Future[Processed] | ValueBatch] = deque()
        for batch in batches:
            pending.append(batch if isinstance(batch, ValueBatch) else self._threads.submit(self._round_trip, batch))
            if len(pending) > self._ahead:
                yield _result(pending.popleft(), processor)
        while pending:
            yield _result(pending.popleft(), processor)

    def _round_trip(self, batch: RawBatch) -> Processed:
        child = self._idle.get()
        try:
            if child.stdin is None or child.stdout is None:
                raise DataError("a worker process of the ingest has no pipes")
            write_parts(child.stdin, *pack_batch(batch))
            parts = read_parts(child.stdout)
        except (OSError, EOFError, ValueError):
            parts = None
        finally:
            self._idle.put(child)
        if parts is None:
            last = batch.position + len(batch) - 1
            raise DataError(
                f"a worker process of the ingest ended (exit code {child.poll()}) while it read rows "
                f"{batch.position} to {last}; if it was out of memory, run with fewer workers"
            )
        return unpack_processed(parts)


def _result(item: Future[Processed] | ValueBatch, processor: BatchProcessor) -> Processed:
    return processor.process(item) if isinstance(item, ValueBatch) else item.result()


def _start(settings: DatasetSettings) -> subprocess.Popen[bytes]:
    paths = [str(PACKAGE_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, **KEEP_MEMORY, "PYTHONPATH": os.pathsep.join(paths)}
    child = subprocess.Popen(  # noqa: S603 (this interpreter, a fixed command)
        [sys.executable, *COMMAND],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        bufsize=1 << 20,
        pipesize=1 << 20,  # few switches between the processes
        start_new_session=True,  # an interrupt from the keyboard is the parent's to handle
    )
    if child.stdin is not None:
        write_parts(child.stdin, settings.model_dump_json().encode())
    return child


def _stop(child: subprocess.Popen[bytes]) -> None:
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:  # the child was killed with a message half written
                continue
    child.wait()


def main() -> None:
    """Serve batches from stdin to stdout until stdin closes."""
    source, target = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # nothing that prints may get between the messages
    head = read_parts(source)
    if head is None:
        return
    processor = BatchProcessor(DatasetSettings.model_validate_json(head[0]))
    while (parts := read_parts(source)) is not None:
        try:
            answer = pack_processed(processor.process(unpack_batch(parts)))
        except VselError as error:
            answer = [str(error).encode()]
        write_parts(target, *answer)


if __name__ == "__main__":
    main()
