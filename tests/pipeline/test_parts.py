"""Finished batches of a job that other jobs of the same partition may publish and clear."""

import pyarrow as pa

from vsel_platform.pipeline import losses
from vsel_platform.pipeline.parts import PartLog
from vsel_platform.storage.files import FileStore


def part(*ids):
    return pa.table({"id": list(ids)})


def test_parts_are_found_again_by_another_job_and_gone_once_cleared(tmp_path):
    log = PartLog(FileStore(str(tmp_path)), "losses-a")
    assert log.load() is None
    log.save(part("a", "b"))
    log.save(part("c"))
    log.save(part("c"))
    again = PartLog(FileStore(str(tmp_path)), "losses-a")
    assert sorted(again.load()["id"].to_pylist()) == ["a", "b", "c"]
    assert PartLog(FileStore(str(tmp_path)), "losses-b").load() is None
    again.clear()
    assert log.load() is None


def test_parts_that_vanish_while_they_are_read_are_left_out(tmp_path, monkeypatch):
    files = FileStore(str(tmp_path))
    log = PartLog(files, "losses-a")
    log.save(part("a"))
    listing = [*files.list("work"), ("work/losses-a/gone.parquet", 10)]
    monkeypatch.setattr(files, "list", lambda prefix: listing)
    assert log.load()["id"].to_pylist() == ["a"]


def test_losses_are_whole_when_another_job_clears_the_parts_meanwhile(fresh, monkeypatch):
    """The other job has published the same rows and removed all parts, those of this job as well."""
    monkeypatch.setattr(PartLog, "save", lambda self, table: self.clear())
    fresh.drive(["presel"])
    ctx = fresh.context()
    pointers = list(ctx.store.pointers("losses"))
    assert pointers
    for pointer in pointers:
        assert pointer.rows == 2 * len(losses.wanted_ids(ctx, "shapes", pointer.partition["shard"]))
