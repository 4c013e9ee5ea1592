import json
import os
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from synthetic_store import ENCODER, RECIPE, SHARDS, build, publish_manifest

from vsel_platform.errors import StorageError
from vsel_platform.storage import gc
from vsel_platform.storage.catalog import open_catalog
from vsel_platform.storage.gc import collect
from vsel_platform.storage.pointers import as_of, history, read_version
from vsel_platform.storage.store import Store
from vsel_platform.storage.vectors import VectorStore

KEY = {"dataset": "a"}


def rows(*positions: int) -> pa.Table:
    return pa.table(
        {"position": list(positions), "reason": ["x"] * len(positions), "detail": ["d"] * len(positions),
         "row_json": pa.nulls(len(positions), pa.string())}
    )  # fmt: skip


@pytest.fixture
def nothing_is_young(monkeypatch):
    """Everything counts as written long ago (files on S3 cannot be given another time)."""
    monkeypatch.setattr(gc, "YOUNG_S", -5.0)
    monkeypatch.setattr(gc, "ABANDONED_S", -5.0)


def make_old(root: str, hours: float, prefix: str = "") -> None:
    """Give the files below a folder an earlier time."""
    moment = time.time() - hours * 3600
    for path in Path(root, prefix).rglob("*"):
        if path.is_file():
            os.utime(path, (moment, moment))


def test_superseded_states_go_and_the_current_one_stays(root, nothing_is_young):
    store = Store(root)
    old = store.publish("quarantine", KEY, rows(1))
    new = store.publish("quarantine", KEY, rows(2))
    report = collect(store, keep_days=0, dry_run=False)
    assert sorted(report.files) == sorted(
        [old.files[0].path, f"tables/quarantine/dataset=a/history/{old.version}.json"]
    )
    assert report.n_bytes > old.files[0].bytes
    assert store.read(new)["position"].to_pylist() == [2]
    assert [p.version for p in history(store.files, new.key)] == [new.version]
    with pytest.raises(StorageError, match="garbage collection"):
        as_of(store.files, new.key, old.created_at)
    assert collect(store, keep_days=0, dry_run=False).files == []


def test_a_dry_run_changes_nothing_and_says_the_same(root, nothing_is_young):
    store = build(root)
    store.publish("quarantine", {"dataset": "demo"}, rows(1))
    publish_manifest(store, [])
    before = [entry.path for folder in ("tables", "artifacts", "vectors") for entry in store.files.entries(folder)]
    dry = collect(store, keep_days=0, dry_run=True)
    after = [entry.path for folder in ("tables", "artifacts", "vectors") for entry in store.files.entries(folder)]
    assert after == before
    assert dry.files
    wet = collect(store, keep_days=0, dry_run=False)
    assert (wet.files, wet.n_bytes, wet.vector_versions) == (dry.files, dry.n_bytes, dry.vector_versions)
    assert json.loads(json.dumps(wet.to_dict()))["dry_run"] is False


def test_states_of_the_last_days_can_still_be_read(tmp_path):
    store = Store(str(tmp_path))
    pointers = [store.publish("quarantine", KEY, rows(n)) for n in range(3)]
    make_old(str(tmp_path), hours=500)
    assert collect(store, keep_days=1, dry_run=False).files == []
    for number, pointer in enumerate(pointers):
        found = as_of(store.files, pointer.key, pointer.created_at)
        assert store.read(found)["position"].to_pylist() == [number]


def test_what_was_superseded_within_the_hour_stays_even_with_zero_days(tmp_path):
    store = Store(str(tmp_path))
    old = store.publish("quarantine", KEY, rows(1))
    store.publish("quarantine", KEY, rows(2))
    make_old(str(tmp_path), hours=500)
    assert collect(store, keep_days=0, dry_run=False).files == []
    assert store.read(old).num_rows == 1


def test_young_files_stay_even_if_nothing_names_them(tmp_path):
    store = Store(str(tmp_path))
    store.files.write("tables/quarantine/dataset=a/0123-young.parquet", b"x")
    store.files.write("tables/quarantine/dataset=a/0123-old.parquet", b"x")
    store.files.write("tables/quarantine/dataset=a/.tmp-1", b"x")
    for name, hours in (("0123-old.parquet", 1.5), (".tmp-1", 1.5), ("0123-young.parquet", 0.5)):
        moment = time.time() - hours * 3600
        os.utime(tmp_path / "tables" / "quarantine" / "dataset=a" / name, (moment, moment))
    report = collect(store, keep_days=0, dry_run=False)
    assert [name.rpartition("/")[2] for name in report.files] == [".tmp-1", "0123-old.parquet"]


def test_states_that_a_selection_manifest_names_stay(root, nothing_is_young):
    store = Store(root)
    named = store.publish("quarantine", KEY, rows(1))
    store.publish("quarantine", KEY, rows(2))
    current = store.publish("quarantine", KEY, rows(3))
    publish_manifest(store, [named.reference, "quarantine/dataset=gone@20200101T000000000000-00000000"])
    collect(store, keep_days=0, dry_run=False)
    connection = open_catalog(store, manifest={"inputs": [named.reference]})
    assert connection.execute("SELECT position FROM quarantine").fetchall() == [(1,)]
    assert store.read(read_version(store.files, named.key, named.version)).num_rows == 1
    assert store.read(current).num_rows == 1
    assert len(list(store.files.list("tables/quarantine/dataset=a/history"))) == 2


def test_a_manifest_that_is_superseded_frees_its_states(root, nothing_is_young):
    store = Store(root)
    named = store.publish("quarantine", KEY, rows(1))
    store.publish("quarantine", KEY, rows(2))
    publish_manifest(store, [named.reference])
    publish_manifest(store, [])
    collect(store, keep_days=0, dry_run=False)
    assert not store.files.exists(named.files[0].path)
    assert len(list(store.files.list("artifacts"))) == 1


@pytest.mark.parametrize("text", ["not json", "{}", '{"inputs": 3}', '{"inputs": ["?"]}'])
def test_an_unreadable_manifest_stops_everything(tmp_path, nothing_is_young, text):
    store = Store(str(tmp_path / "store"))
    store.publish("quarantine", KEY, rows(1))
    store.publish("quarantine", KEY, rows(2))
    source = tmp_path / "source"
    source.mkdir()
    (source / "manifest.json").write_text(text)
    store.publish_artifact("selection", {"recipe": RECIPE}, source)
    before = [entry.path for entry in store.files.entries("tables")]
    with pytest.raises(StorageError):
        collect(store, keep_days=0, dry_run=False)
    assert [entry.path for entry in store.files.entries("tables")] == before


def test_parts_go_when_their_job_was_idle_for_a_day(tmp_path):
    store = Store(str(tmp_path))
    for name in ("work/idle/1", "work/idle/2", "work/running/1"):
        store.files.write(name, b"part")
    make_old(str(tmp_path), hours=25, prefix="work")
    store.files.write("work/running/2", b"part")
    assert collect(store, keep_days=30, dry_run=False).files == ["work/idle/1", "work/idle/2"]
    assert [path for path, _ in store.files.list("work")] == ["work/running/1", "work/running/2"]


def test_vector_versions_that_no_state_names_go(root, nothing_is_young):
    store = build(root)
    vectors = VectorStore(root)
    for number in range(3):
        vectors.replace_shard("image_embeddings", ENCODER, "extra", [f"x{number}"], np.full((1, 4), number))
    table = vectors.tables()[0]
    named = {p.metadata["lance_version"] for p in store.pointers("image_embeddings")}
    report = collect(store, keep_days=0, dry_run=False)
    left = {version["version"] for version in vectors.dataset(table).versions()}
    newest = vectors.dataset(table).version
    assert left == named | {newest}
    assert report.vector_versions > 0
    assert report.vector_bytes > 0
    for version in named:
        assert vectors.read("image_embeddings", ENCODER, None, version)[0]
    assert vectors.read("image_embeddings", ENCODER, ["x2"])[0] == ["x2"]


def test_young_vector_versions_stay(tmp_path):
    build(str(tmp_path))
    vectors = VectorStore(str(tmp_path))
    vectors.replace_shard("image_embeddings", ENCODER, SHARDS[0], ["a"], np.ones((1, 4)))
    before = len(vectors.dataset(vectors.tables()[0]).versions())
    assert collect(Store(str(tmp_path)), keep_days=0, dry_run=False).vector_versions == 0
    assert len(vectors.dataset(vectors.tables()[0]).versions()) == before


def test_collection_beside_writers_never_breaks_the_current_state(tmp_path):
    store = Store(str(tmp_path))
    store.publish("quarantine", KEY, rows(0))
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            store.publish("quarantine", KEY, rows(number % 3))  # the same contents come back again and again

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(30):
            make_old_where_nobody_writes(tmp_path)
            collect(store, keep_days=0, dry_run=False)
            assert store.read_partition("quarantine", KEY).num_rows == 1
    finally:
        stop.set()
        thread.join()
    assert store.read_partition("quarantine", KEY).num_rows == 1


def make_old_where_nobody_writes(root: Path) -> None:
    """Age data files that are not the newest: the guard must then come from the pointers."""
    files = sorted(root.rglob("*.parquet"), key=lambda path: path.stat().st_mtime)
    for path in files[:-3]:
        os.utime(path, (0, 0))


def test_negative_days_are_refused(tmp_path):
    with pytest.raises(StorageError, match="keep_days"):
        collect(Store(str(tmp_path)), keep_days=-1, dry_run=True)
