"""Worker processes: the same results in the same order, and errors that say what happened."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vsel_platform.config import DatasetSettings
from vsel_platform.errors import DataError
from vsel_platform.samples import workers
from vsel_platform.samples.batches import BatchProcessor, Processed
from vsel_platform.samples.reading import SourceReader
from vsel_platform.samples.workers import WorkerPool

Settings = Callable[..., DatasetSettings]


def tables(results: list[Processed]) -> list[Any]:
    return [[batch.to_pylist() for batch in (r.accepted, r.rejected, r.images)] for r in results]


def test_results_are_those_of_this_process_in_order(make_settings: Settings, make_row: Any) -> None:
    rows = [make_row(i) if i % 5 else {"id": i} for i in range(400)]
    settings = make_settings(rows)
    source = SourceReader([settings.source], batch_bytes=4_000)
    here = BatchProcessor(settings)
    batches = list(source.batches())
    assert len(batches) > 10
    with WorkerPool(settings, 2) as pool:
        found = list(pool.process(iter(batches), here))
    assert tables(found) == tables([here.process(batch) for batch in batches])


def test_a_worker_that_dies_is_an_error_that_names_the_rows(make_settings: Settings, make_row: Any) -> None:
    settings = make_settings([make_row(i) for i in range(100)])
    batches = SourceReader([settings.source], batch_bytes=1_000).batches()
    with WorkerPool(settings, 1) as pool:
        (child,) = pool._children
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        with pytest.raises(DataError, match=r"ended \(exit code -9\) while it read rows 0 to"):
            list(pool.process(batches, BatchProcessor(settings)))


def test_an_error_in_a_worker_is_raised_here(make_settings: Settings, make_row: Any, monkeypatch: Any) -> None:
    settings = make_settings([make_row()])
    code = (
        "from vsel_platform.errors import DataError\n"
        "from vsel_platform.samples import workers\n"
        "from vsel_platform.samples.batches import BatchProcessor\n"
        "def fail(self, batch): raise DataError('the disk is gone')\n"
        "BatchProcessor.process = fail\n"
        "workers.main()\n"
    )
    monkeypatch.setattr(workers, "COMMAND", ("-c", code))
    with WorkerPool(settings, 1) as pool, pytest.raises(DataError, match="the disk is gone"):
        list(pool.process(SourceReader([settings.source]).batches(), BatchProcessor(settings)))


def test_workers_end_with_the_pool(make_settings: Settings, make_row: Any) -> None:
    with WorkerPool(make_settings([make_row()]), 2) as pool:
        children = pool._children
    assert [child.returncode for child in children] == [0, 0]


def test_an_error_outside_stops_the_workers(make_settings: Settings, make_row: Any) -> None:
    with pytest.raises(RuntimeError, match="outside"), WorkerPool(make_settings([make_row()]), 1) as pool:
        raise RuntimeError("outside")
    assert pool._children[0].returncode is not None


def test_workers_find_the_package_from_any_directory(
    make_settings: Settings, make_row: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings([make_row()])
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with WorkerPool(settings, 1) as pool:
        (found,) = pool.process(SourceReader([settings.source]).batches(), BatchProcessor(settings))
    assert found.n_rows == 1
