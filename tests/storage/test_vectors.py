import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from vsel_platform.errors import NotMaterializedError, StorageError
from vsel_platform.storage import vectors
from vsel_platform.storage.vectors import VectorStore, lance_options, table_name

SIGNAL, PRINT = "image_embeddings", "f0"
RACER = """
import sys, time
from pathlib import Path
import lancedb
import numpy as np
from vsel_platform.storage.vectors import VectorStore

writer, meeting = int(sys.argv[1]), Path(sys.argv[2])

def meet(name):
    (meeting / f"{name}-{writer}").touch()
    while len(list(meeting.glob(f"{name}-*"))) < 2:
        time.sleep(0.001)

for number, store in enumerate(map(VectorStore, sys.argv[3:])):
    for turn in range(6):
        meet(f"{number}.{turn}")
        ids = [f"id{turn}-{n}" for n in range(40)]
        store.replace_shard("image_embeddings", "f0", f"shared{turn}", ids, np.full((40, 4), writer, np.float32))
        mine = [f"own{writer}-{n}" for n in range(10 + turn)]
        store.replace_shard("image_embeddings", "f0", f"s{writer}", mine, np.full((len(mine), 4), turn, np.float32))
"""


def matrix(rows: int, columns: int = 4, start: float = 0.0) -> np.ndarray:
    return (start + np.arange(rows * columns, dtype=np.float32)).reshape(rows, columns)


@pytest.fixture
def store(root):
    return VectorStore(root)


def test_vectors_are_read_back_sorted_by_id(store):
    store.replace_shard(SIGNAL, PRINT, "s", ["b", "c", "a"], matrix(3))
    ids, vectors = store.read(SIGNAL, PRINT, None)
    assert ids == ["a", "b", "c"]
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, matrix(3)[[2, 0, 1]])
    ids, vectors = store.read(SIGNAL, PRINT, ["c", "x", "a", "c"])
    assert ids == ["a", "c"]
    np.testing.assert_array_equal(vectors, matrix(3)[[2, 1]])
    ids, vectors = store.read(SIGNAL, PRINT, ["x"])
    assert ids == []
    assert vectors.shape == (0, 4)


def test_a_shard_is_replaced_and_others_stay(store):
    store.replace_shard(SIGNAL, PRINT, "s", ["a", "b"], matrix(2))
    store.replace_shard(SIGNAL, PRINT, "t", ["c"], matrix(1))
    store.replace_shard(SIGNAL, PRINT, "s", ["b", "d"], matrix(2, start=100))
    ids, vectors = store.read(SIGNAL, PRINT, None)
    assert ids == ["b", "c", "d"]
    np.testing.assert_array_equal(vectors[0], matrix(1, start=100)[0])
    store.replace_shard(SIGNAL, PRINT, "s", [], matrix(0))
    assert store.read(SIGNAL, PRINT, None)[0] == ["c"]
    assert store.existing_ids(SIGNAL, PRINT, ["b", "c"]) == {"c"}


def test_every_commit_can_be_read_again(store):
    first = store.replace_shard(SIGNAL, PRINT, "s", ["a"], matrix(1))
    second = store.replace_shard(SIGNAL, PRINT, "s", ["b"], matrix(1))
    assert second.version > first.version
    assert store.read(SIGNAL, PRINT, None, first.version)[0] == ["a"]
    assert store.read(SIGNAL, PRINT, None, second.version)[0] == ["b"]
    tags = store.dataset(first.table).tags.list()
    assert {tag["version"] for tag in tags.values()} == {first.version, second.version}
    with pytest.raises(StorageError, match="version 99"):
        store.read(SIGNAL, PRINT, None, 99)


def test_what_is_not_there_is_said(store):
    assert store.existing_ids(SIGNAL, PRINT, ["a"]) == set()
    assert store.check(SIGNAL, PRINT).rows == 0
    assert store.tables() == []
    with pytest.raises(NotMaterializedError, match=f"{SIGNAL} under fingerprint {PRINT}"):
        store.read(SIGNAL, PRINT, None)
    with pytest.raises(NotMaterializedError):
        store.compact(SIGNAL, PRINT)


def test_compaction_leaves_fewer_files_and_the_same_rows(store):
    for number in range(5):
        last = store.replace_shard(SIGNAL, PRINT, f"s{number}", [f"{number}{n}" for n in range(3)], matrix(3))
    before = store.read(SIGNAL, PRINT, None)
    result = store.compact(SIGNAL, PRINT)
    assert result.fragments_before == 5
    assert result.fragments_after == 1
    assert result.version > last.version
    after = store.read(SIGNAL, PRINT, None)
    assert after[0] == before[0]
    np.testing.assert_array_equal(after[1], before[1])
    assert store.read(SIGNAL, PRINT, None, last.version)[0] == before[0]


@pytest.mark.parametrize("shard", ["it's", "' OR 1=1 --", 'a"b', "ü\\", "%_", "a;b"])
def test_shard_names_are_quoted(tmp_path, shard):
    store = VectorStore(str(tmp_path))
    store.replace_shard(SIGNAL, PRINT, "other", ["o"], matrix(1))
    store.replace_shard(SIGNAL, PRINT, shard, ["a", "b"], matrix(2))
    store.replace_shard(SIGNAL, PRINT, shard, ["c"], matrix(1))
    assert store.read(SIGNAL, PRINT, None)[0] == ["c", "o"]


def test_half_precision_is_kept_in_the_table_and_read_as_float32(tmp_path):
    store = VectorStore(str(tmp_path))
    store.replace_shard(SIGNAL, PRINT, "s", ["a"], np.array([[0.1, 2.0]], np.float32), dtype="float16")
    store.replace_shard(SIGNAL, PRINT, "t", ["b"], np.array([[3.0, 4.0]], np.float32))
    assert str(store.dataset(table_name(SIGNAL, PRINT)).schema.field("vector").type.value_type) == "halffloat"
    _, vectors = store.read(SIGNAL, PRINT, None)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, [[0.1, 2.0], [3.0, 4.0]], atol=1e-4)
    with pytest.raises(StorageError, match="float16"):
        store.replace_shard(SIGNAL, PRINT, "s", ["a"], np.array([[1e9, 0]], np.float32))


@pytest.mark.parametrize(
    ("ids", "vectors", "message"),
    [
        (["a", "a"], matrix(2), "repeated"),
        (["a"], matrix(2), "shape"),
        (["a"], np.array([[1.0, np.nan]], np.float32), "1 vectors hold NaN"),
        (["a"], np.zeros(3, np.float32), "shape"),
        (["a"], np.zeros((1, 0), np.float32), "shape"),
    ],
)
def test_bad_vectors_are_refused(tmp_path, ids, vectors, message):
    with pytest.raises(StorageError, match=message):
        VectorStore(str(tmp_path)).replace_shard(SIGNAL, PRINT, "s", ids, vectors)


def test_another_dimension_is_refused(tmp_path):
    store = VectorStore(str(tmp_path))
    store.replace_shard(SIGNAL, PRINT, "s", ["a"], matrix(1, 4))
    with pytest.raises(StorageError, match="holds vectors of 4 values, got 5"):
        store.replace_shard(SIGNAL, PRINT, "s", ["a"], matrix(1, 5))


def test_tables_are_named_by_signal_and_fingerprint(tmp_path):
    store = VectorStore(str(tmp_path))
    store.replace_shard(SIGNAL, "f1", "s", ["a"], matrix(1, 4))
    store.replace_shard(SIGNAL, "f2", "s", ["a"], matrix(1, 8))
    assert store.tables() == ["image_embeddings-f1", "image_embeddings-f2"]
    with pytest.raises(StorageError, match="letters, digits"):
        table_name(SIGNAL, "../x")


def test_the_tables_open_in_lancedb(tmp_path):
    import lancedb

    VectorStore(str(tmp_path)).replace_shard(SIGNAL, PRINT, "s", ["a", "b"], matrix(2))
    table = lancedb.connect(str(tmp_path / "vectors")).open_table("image_embeddings-f0")
    assert table.count_rows() == 2
    assert table.search(matrix(2)[1].tolist()).limit(1).to_arrow()["id"].to_pylist() == ["b"]


@pytest.mark.integration
def test_two_processes_neither_lose_nor_double_rows(tmp_path, s3_root):
    roots = [str(tmp_path / "store"), s3_root]
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(n), str(meeting), *roots], env=environment, stderr=subprocess.PIPE
        )
        for n in range(2)
    ]
    for racer in racers:
        _, error = racer.communicate(timeout=120)
        assert racer.returncode == 0, error.decode()
    for root in roots:
        store = VectorStore(root)
        check = store.check(SIGNAL, PRINT)
        assert check.rows == check.distinct == 6 * 40 + 2 * 15
        for turn in range(6):
            _, vectors = store.read(SIGNAL, PRINT, [f"id{turn}-{n}" for n in range(40)])
            assert len(vectors) == 40
            assert len(np.unique(vectors)) == 1  # one writer's shard as a whole


def test_the_endpoint_comes_from_the_environment(monkeypatch):
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    assert lance_options() == {"region": "us-east-1"}
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:1")
    assert lance_options()["allow_http"] == "true"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://s3.example")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert lance_options() == {"region": "eu-west-1", "endpoint": "https://s3.example", "allow_http": "false"}


def claim(store: VectorStore, age_s: float) -> None:
    name = table_name(SIGNAL, PRINT)
    store.files.write(f"vectors/{name}.claim", repr(time.time() - age_s).encode())


def test_a_writer_waits_for_the_one_that_creates_the_table_and_overwrites_nothing(tmp_path):
    store, owner = VectorStore(str(tmp_path)), VectorStore(str(tmp_path))
    claim(store, 0.0)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.replace_shard, SIGNAL, PRINT, "b", ["b"], matrix(1))
        with pytest.raises(TimeoutError):
            waiting.result(0.3)
        claim(store, vectors.CLAIM_S + 1)
        owner.replace_shard(SIGNAL, PRINT, "a", ["a"], matrix(1))
        waiting.result(30)
    assert store.read(SIGNAL, PRINT, None)[0] == ["a", "b"]


def test_the_claim_of_a_killed_writer_is_taken_over(tmp_path):
    store = VectorStore(str(tmp_path))
    claim(store, vectors.CLAIM_S + 1)
    store.replace_shard(SIGNAL, PRINT, "a", ["a"], matrix(1))
    assert store.tables() == [table_name(SIGNAL, PRINT)]


def test_writers_that_meet_at_a_new_table_lose_nothing(tmp_path):
    stores = [VectorStore(str(tmp_path)) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        done = [
            pool.submit(store.replace_shard, SIGNAL, PRINT, f"s{n}", [f"id{n}"], matrix(1, start=n))
            for n, store in enumerate(stores)
        ]
        for one in done:
            one.result(60)
    assert stores[0].read(SIGNAL, PRINT, None)[0] == [f"id{n}" for n in range(8)]
