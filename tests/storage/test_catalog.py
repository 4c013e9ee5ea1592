import re
import subprocess
import sys
import time
from dataclasses import replace

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from synthetic_store import DATASET, ENCODER, ROWS, SHARDS, build, sample

from vsel_platform.errors import StorageError
from vsel_platform.storage.catalog import open_catalog, publish_catalog_file, snapshot
from vsel_platform.storage.catalog_schema import all_columns, catalog_tables, sql_type
from vsel_platform.storage.duckdb_files import PublishedFiles
from vsel_platform.storage.pointers import history, swap_pointer
from vsel_platform.storage.store import Store
from vsel_platform.storage.vectors import VectorStore
from vsel_platform.tables import TABLES, Column


@pytest.fixture
def store(root):
    return build(root)


def rows(connection, sql):
    return connection.execute(sql).fetchall()


def quarantine(*positions: int) -> pa.Table:
    return pa.table(
        {"position": list(positions), "reason": ["x"] * len(positions), "detail": ["d"] * len(positions),
         "row_json": pa.nulls(len(positions), pa.string())}
    )  # fmt: skip


def test_every_table_is_a_view_with_its_rows(store):
    connection = open_catalog(store)
    for pointer in {p.table: p for p in store.pointers() if p.table in TABLES}.values():
        total = sum(p.rows for p in store.pointers(pointer.table))
        assert rows(connection, f"SELECT count(*) FROM {pointer.table}") == [(total,)]
    assert rows(connection, "SELECT DISTINCT dataset, mode FROM presel_scores") == [(DATASET, "default")]
    assert rows(connection, "SELECT shard, count(*) FROM samples GROUP BY 1 ORDER BY 1") == [(s, 20) for s in SHARDS]
    assert rows(connection, f"SELECT task FROM manifest WHERE sample_id = '{sample(5)}'") == [("colour",)]


def test_embeddings_are_read_through_lance(store):
    connection = open_catalog(store, tables=["image_embeddings"])
    found = rows(connection, "SELECT id, shard, fingerprint, vector FROM image_embeddings ORDER BY id")
    ids, vectors = VectorStore(store.files.root_url).read("image_embeddings", ENCODER, None)
    assert [row[0] for row in found] == ids
    assert {row[2] for row in found} == {ENCODER}
    assert found[0][3] == pytest.approx(vectors[0].tolist())
    assert rows(connection, "SELECT count(*) FROM image_embeddings WHERE shard = 'demo-0001'") == [(9,)]


def test_a_column_that_came_later_is_null_in_earlier_states(tmp_path, monkeypatch):
    store = Store(str(tmp_path))
    store.publish("quarantine", {"dataset": "early"}, quarantine(1, 2))
    later = replace(
        TABLES["quarantine"], columns=(*TABLES["quarantine"].columns, Column("line", "int64", "Line.", "", True))
    )
    monkeypatch.setitem(TABLES, "quarantine", later)
    store.publish("quarantine", {"dataset": "late"}, quarantine(3).append_column("line", pa.array([7])))
    connection = open_catalog(store)
    found = rows(connection, "SELECT dataset, position, line FROM quarantine ORDER BY position")
    assert found == [("early", 1, None), ("early", 2, None), ("late", 3, 7)]
    names = [row[0] for row in rows(connection, "DESCRIBE quarantine")]
    assert names == [column.name for column in all_columns(later)]


def test_tables_without_partitions_are_empty_views_of_the_right_types(root):
    connection = open_catalog(Store(root))
    for spec in TABLES.values():
        found = {name: kind for name, kind, *_ in rows(connection, f"DESCRIBE {spec.name}")}
        assert found == {c.name: sql_type(c.type) for c in all_columns(spec)}
        assert rows(connection, f"SELECT count(*) FROM {spec.name}") == [(0,)]
    assert rows(connection, "SELECT count(*) FROM image_embeddings") == [(0,)]
    assert rows(connection, "SELECT count(*) FROM lineage") == [(0,)]


def test_filled_views_have_the_types_of_the_tables(tmp_path):
    connection = open_catalog(build(str(tmp_path)))
    for spec in TABLES.values():
        found = {name: kind for name, kind, *_ in rows(connection, f"DESCRIBE {spec.name}")}
        assert found == {c.name: sql_type(c.type) for c in all_columns(spec)}


def test_every_column_is_commented_and_listed(tmp_path):
    connection = open_catalog(Store(str(tmp_path)))
    listed = rows(connection, "SELECT table_name, column_name FROM columns")
    commented = rows(
        connection, "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal AND comment IS NOT NULL"
    )
    everything = rows(connection, "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal")
    assert sorted(listed) == sorted(commented) == sorted(everything)
    assert {name for name, _ in listed} == set(catalog_tables())
    ((comment,),) = rows(
        connection, "SELECT comment FROM duckdb_columns() WHERE table_name = 'losses' AND column_name = 'loss_mean'"
    )
    assert comment == "loss_sum / n_tokens. [nat/token]"
    assert all(comment for (comment,) in rows(connection, "SELECT comment FROM duckdb_views() WHERE NOT internal"))


def test_lineage_says_what_was_read(store):
    connection = open_catalog(store)
    (row,) = rows(
        connection, "SELECT run_id, quality, rows, len(inputs) FROM lineage WHERE table_name = 'selected_subset'"
    )
    assert row == ("run-4", "ok", 8, 12)
    assert len(rows(connection, "FROM lineage")) == len(list(store.pointers()))
    (first,) = rows(connection, "SELECT DISTINCT inputs[1] FROM lineage WHERE table_name = 'evaluation'")
    assert first[0] in {p.reference for p in store.pointers("selected_subset")}


def test_a_catalog_keeps_its_state_while_the_store_moves_on(tmp_path):
    store = build(str(tmp_path), with_vectors=False)
    connection = open_catalog(store)
    store.publish("quarantine", {"dataset": DATASET}, quarantine(1))
    assert rows(connection, "SELECT count(*) FROM quarantine") == [(3,)]
    assert rows(open_catalog(store), "SELECT count(*) FROM quarantine") == [(1,)]


def test_as_of_shows_the_store_as_it_was(root):
    store = Store(root)
    key = {"dataset": "a"}
    first = store.publish("quarantine", key, quarantine(1))
    second = store.publish("quarantine", key, quarantine(2, 3))
    third = store.publish("quarantine", {"dataset": "b"}, quarantine(4))

    def positions(as_of):
        found = rows(open_catalog(store, as_of=as_of), "SELECT dataset, position FROM quarantine ORDER BY 2")
        return [f"{dataset}{position}" for dataset, position in found]

    with pytest.raises(StorageError, match=rf"the store was empty at 2000-01-01; .* {re.escape(first.created_at)}"):
        positions("2000-01-01")
    assert positions(first.created_at) == ["a1"]
    assert positions(second.created_at) == ["a2", "a3"]
    assert positions(third.created_at) == ["a2", "a3", "b4"]
    assert positions(None) == ["a2", "a3", "b4"]


def test_a_table_that_came_later_is_empty_before(root):
    store = Store(root)
    first = store.publish("quarantine", {"dataset": "a"}, quarantine(1))
    manifest = {name: [] for name in TABLES["manifest"].column_names}
    store.publish("manifest", {"dataset": "a"}, pa.table(manifest, TABLES["manifest"].arrow_schema()))
    assert snapshot(store, as_of=first.created_at, tables={"manifest"}) == []


def test_a_manifest_shows_exactly_the_states_that_it_names(root):
    store = Store(root)
    old = store.publish("quarantine", {"dataset": "a"}, quarantine(1))
    store.publish("quarantine", {"dataset": "a"}, quarantine(2))
    store.publish("quarantine", {"dataset": "b"}, quarantine(3))
    manifest = {"inputs": [old.reference, old.reference]}
    connection = open_catalog(store, manifest=manifest)
    assert rows(connection, "SELECT dataset, position FROM quarantine") == [("a", 1)]
    assert rows(connection, "SELECT version FROM lineage") == [(old.version,)]


def test_a_manifest_shows_the_vectors_of_its_version(tmp_path):
    store = build(str(tmp_path))
    before = [p.reference for p in store.pointers("image_embeddings")]
    vectors = VectorStore(str(tmp_path))
    state = vectors.replace_shard("image_embeddings", ENCODER, SHARDS[0], ["new"], np.ones((1, 4), np.float32))
    store.publish_pointer(
        "image_embeddings",
        {"fingerprint": ENCODER, "shard": SHARDS[0]},
        rows=1,
        data_version="later",
        metadata={"lance_table": state.table, "lance_version": state.version},
    )
    count = "SELECT count(*), count(*) FILTER (id = 'new') FROM image_embeddings"
    assert rows(open_catalog(store), count) == [(10, 1)]
    assert rows(open_catalog(store, manifest={"inputs": before}), count) == [(19, 0)]
    assert rows(open_catalog(store, manifest={"inputs": before[1:]}), count) == [(9, 0)]


@pytest.mark.parametrize("manifest", [{}, {"inputs": "x"}, {"inputs": [1]}])
def test_a_manifest_without_inputs_is_refused(tmp_path, manifest):
    with pytest.raises(StorageError, match="no list `inputs`"):
        open_catalog(Store(str(tmp_path)), manifest=manifest)


def test_a_manifest_whose_states_are_gone_is_refused(tmp_path):
    store = build(str(tmp_path), with_vectors=False)
    missing = "quarantine/dataset=demo@20200101T000000000000-00000000"
    with pytest.raises(StorageError, match="20200101T000000000000"):
        open_catalog(store, manifest={"inputs": [missing]})
    with pytest.raises(StorageError, match="not both"):
        open_catalog(store, manifest={"inputs": []}, as_of="2026-01-01")


def test_only_the_tables_asked_for_are_opened(tmp_path):
    store = build(str(tmp_path), with_vectors=False)
    assert {p.table for p in snapshot(store, tables=["losses", "lineage_"])} == {"losses"}
    # Views of scores are columns too, and which there are the store says.
    assert {p.table for p in snapshot(store, tables=["columns"])} == {"method_scores"}
    connection = open_catalog(store, tables=["losses"])
    assert rows(connection, "SELECT view_name FROM duckdb_views() WHERE NOT internal") == [("losses",)]


def test_roots_and_partitions_with_special_characters_work(root):
    store = Store(f"{root}/dataset=x/it's [1]*%41 ü")
    store.publish("quarantine", {"dataset": "a'b [2]*=%20"}, quarantine(7))
    assert rows(open_catalog(store), "SELECT dataset, position FROM quarantine") == [("a'b [2]*=%20", 7)]


def test_many_partitions_open_quickly(tmp_path):
    store = Store(str(tmp_path))
    made = store.publish("quarantine", {"dataset": "d0"}, quarantine(1))
    for number in range(1, 300):
        swap_pointer(store.files, replace(made, partition={"dataset": f"d{number}"}))
    start = time.perf_counter()
    assert rows(open_catalog(store), "SELECT count(DISTINCT dataset) FROM quarantine") == [(300,)]
    assert time.perf_counter() - start < 10


def test_catalog_file_opens_in_another_process_and_is_replaced_as_a_whole(tmp_path):
    store = build(str(tmp_path / "store"), with_vectors=False)
    path = publish_catalog_file(store)
    assert path == tmp_path / "store" / "catalog.duckdb"
    script = "import duckdb, sys; print(duckdb.connect(sys.argv[1], read_only=True).execute(sys.argv[2]).fetchone()[0])"

    def ask(sql: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", script, str(path), sql], check=True, capture_output=True, text=True, cwd="/"
        ).stdout.strip()

    assert ask("SELECT count(*) FROM presel_scores") == str(ROWS)
    with duckdb.connect(str(path), read_only=True) as shell:  # a shell that stays open
        store.publish("quarantine", {"dataset": DATASET}, quarantine(1))
        assert publish_catalog_file(store) == path
        assert rows(shell, "SELECT count(*) FROM quarantine") == [(3,)]
    assert ask("SELECT count(*) FROM quarantine") == "1"
    assert ask("SELECT comment FROM duckdb_views() WHERE view_name = 'losses'").startswith("Answer loss")
    assert [p.name for p in path.parent.iterdir() if p.name.startswith(".tmp")] == []
    assert len(list(history(store.files, f"quarantine/dataset={DATASET}"))) == 2


@pytest.mark.integration
def test_catalog_file_is_refused_on_s3(s3_root):
    with pytest.raises(StorageError, match="vsel sql"):
        publish_catalog_file(Store(s3_root))


@pytest.mark.integration
def test_a_catalog_on_s3_can_open_published_files_only(s3_root):
    store = build(s3_root, with_vectors=False)
    store.files.write("secret.parquet", b"PAR1")
    (pointer,) = store.pointers("presel_scores")
    files = PublishedFiles(store.files, {pointer.files[0].path: pointer.files[0].bytes})
    data = files.open(f"vsel://{pointer.files[0].path}").read()
    assert data == store.files.read(pointer.files[0].path)
    with pytest.raises(FileNotFoundError):
        files.open("vsel://secret.parquet")
    with pytest.raises(PermissionError):
        files.open(f"vsel://{pointer.files[0].path}", "wb")
