import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from store_writer import PARTITION, die_at, publish, rows

from vsel_platform.errors import NotMaterializedError, StorageError
from vsel_platform.storage import parquet
from vsel_platform.storage.files import TEMPORARY_PREFIX
from vsel_platform.storage.pointers import as_of, history, read_version
from vsel_platform.storage.store import Store, artifact_name
from vsel_platform.tables import TABLES

SUPPORT = Path(__file__).parents[1] / "support"
# The children neither use Lance nor S3, whose threads a fork would leave behind.
IN_FORKS = pytest.mark.filterwarnings("ignore:lance is not fork-safe")
FILE_OPERATIONS = {
    "open", "write", "writelines", "flush", "fsync", "close", "replace", "rename", "mkdir", "unlink", "flock",
}  # fmt: skip


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    monkeypatch.setattr(parquet, "ROWS_PER_FILE", 2)


def state(root: str) -> list[str]:
    """Reasons of the current rows; fails if they are not one whole state."""
    found = Store(root).read_partition("quarantine", PARTITION)
    reasons = found["reason"].to_pylist()
    assert found["position"].to_pylist() == list(range(5))
    assert len(set(reasons)) == 1
    return reasons[0]


# --- publish and read


def test_rows_are_read_back_in_the_tables_schema(root):
    store = Store(root)
    pointer = store.publish("quarantine", PARTITION, rows("x"), run_id="r1", inputs=["a"], metadata={"k": (1, 2)})
    assert pointer.rows == 5
    assert [file.rows for file in pointer.files] == [2, 2, 1]
    assert store.pointer("quarantine", PARTITION) == pointer
    table = store.read(pointer)
    assert table.column_names == ["position", "reason", "detail", "row_json"]
    assert not table.schema.field("reason").nullable
    assert store.read(pointer, ["detail", "position"]).column_names == ["detail", "position"]


def test_a_stream_of_tables_equals_one_table(root):
    store = Store(root)
    whole = store.publish("quarantine", PARTITION, rows("x"))
    table = rows("x")
    stream = store.publish("quarantine", PARTITION, (table.slice(n, 1) for n in range(5)))
    assert stream == whole


def test_the_same_content_and_lineage_change_nothing(root):
    store = Store(root)
    first = store.publish("quarantine", PARTITION, rows("x"), metadata={"pair": (1, 2)})
    assert store.publish("quarantine", PARTITION, rows("x"), metadata={"pair": (1, 2)}) == first
    assert len(list(history(store.files, first.key))) == 1


def test_a_changed_lineage_is_published_with_the_same_files(root):
    store = Store(root)
    first = store.publish("quarantine", PARTITION, rows("x"))
    second = store.publish("quarantine", PARTITION, rows("x"), code_version="2")
    assert second.previous == first.version
    assert second.data_version == first.data_version
    assert second.files == first.files


def test_a_lost_file_is_written_again(root):
    store = Store(root)
    first = store.publish("quarantine", PARTITION, rows("x"))
    store.files.delete(first.files[1].path)
    with pytest.raises(StorageError, match=r"\.parquet"):
        store.read(first)
    second = store.publish("quarantine", PARTITION, rows("x"))
    assert second.data_version == first.data_version
    assert second.files[0] == first.files[0]
    assert state(root) == "x"


def test_an_empty_table_is_a_state_too(root):
    store = Store(root)
    pointer = store.publish("quarantine", PARTITION, rows("x", 0))
    assert pointer.files == []
    assert store.read(pointer).schema == store.read(pointer, None).schema
    assert store.read(pointer).num_rows == 0


def test_missing_and_failed_partitions_are_refused(root):
    store = Store(root)
    with pytest.raises(NotMaterializedError, match="dataset a has not been materialized"):
        store.read_partition("quarantine", PARTITION)
    store.publish("quarantine", PARTITION, rows("x"), quality="failed: rate")
    with pytest.raises(NotMaterializedError, match="failed: rate"):
        store.require("quarantine", PARTITION)


@pytest.mark.parametrize(
    ("table", "partition", "message"),
    [("quarantin", PARTITION, "unknown table"), ("quarantine", {}, "partitioned by"),
     ("quarantine", {"shard": "a"}, "partitioned by"), ("quarantine", {"dataset": "../x"}, "not a file name")],
)  # fmt: skip
def test_a_wrong_table_or_partition_is_named(tmp_path, table, partition, message):
    with pytest.raises(StorageError, match=message):
        Store(str(tmp_path)).publish(table, partition, rows("x"))


def test_nulls_are_refused_before_anything_changes(tmp_path):
    store = Store(str(tmp_path))
    store.publish("quarantine", PARTITION, rows("x"))
    bad = rows("y").set_column(1, "reason", pa.array([None, "y", "y", "y", "y"]))
    with pytest.raises(StorageError, match="reason has 1 NULL"):
        store.publish("quarantine", PARTITION, bad)
    assert state(str(tmp_path)) == "x"


def test_metadata_must_be_plain(tmp_path):
    with pytest.raises(StorageError, match="plain JSON"):
        Store(str(tmp_path)).publish("quarantine", PARTITION, rows("x"), metadata={"a": object()})


def test_pointers_are_listed_by_table(root):
    store = Store(root)
    for dataset in ("b", "a"):
        store.publish("quarantine", {"dataset": dataset}, rows("x"))
    store.publish_pointer("image_embeddings", {"fingerprint": "f", "shard": "s"}, rows=3, data_version="v")
    assert [p.key for p in store.pointers("quarantine")] == ["quarantine/dataset=a", "quarantine/dataset=b"]
    assert next(p.key for p in store.pointers()) == "image_embeddings/fingerprint=f/shard=s"
    assert len(list(store.pointers())) == 3


def test_partition_values_with_special_characters_work(root):
    store = Store(root)
    name = "ü [1]*?=%20'"
    store.publish("quarantine", {"dataset": name}, rows("x"))
    assert [p.partition for p in store.pointers()] == [{"dataset": name}]
    assert store.read_partition("quarantine", {"dataset": name}).num_rows == 5


# --- artifacts


def test_an_artifact_is_fetched_as_it_was_published(root, tmp_path):
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "a.json").write_bytes(b"{}")
    (source / "sub" / "b.bin").write_bytes(os.urandom(100))
    store = Store(root)
    pointer = store.publish_artifact("selection", {"recipe": "r"}, source, run_id="1")
    assert sorted(artifact_name(pointer, file) for file in pointer.files) == ["a.json", "sub/b.bin"]
    target = store.fetch_artifact(pointer, tmp_path / "target")
    assert (target / "sub" / "b.bin").read_bytes() == (source / "sub" / "b.bin").read_bytes()
    assert store.publish_artifact("selection", {"recipe": "r"}, source, run_id="1") == pointer


def test_an_old_artifact_stays_readable_after_a_new_one(root, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    store = Store(root)
    old = new = None
    for text in ("old", "new"):
        (source / "a").write_text(text)
        old, new = new, store.publish_artifact("selection", {"recipe": "r"}, source)
    assert (store.fetch_artifact(old, tmp_path / "o") / "a").read_text() == "old"
    assert (store.fetch_artifact(new, tmp_path / "n") / "a").read_text() == "new"


def test_a_damaged_artifact_is_published_again(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_text("x")
    store = Store(str(tmp_path / "store"))
    first = store.publish_artifact("selection", {"recipe": "r"}, source)
    store.files.delete(first.files[0].path)
    second = store.publish_artifact("selection", {"recipe": "r"}, source)
    assert second.data_version == first.data_version
    assert (store.fetch_artifact(second, tmp_path / "t") / "a").read_text() == "x"


def test_an_artifact_cannot_write_outside_its_directory(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_text("x")
    store = Store(str(tmp_path / "store"))
    pointer = store.publish_artifact("selection", {"recipe": "r"}, source)
    base = pointer.files[0].path.removesuffix("/a")
    bad = replace(pointer, files=[replace(pointer.files[0], path=f"{base}/../../escape")])
    with pytest.raises(StorageError, match="outside"):
        store.fetch_artifact(bad, tmp_path / "t")


# --- killed writers


def publish_in_child(root: str, marker: str, kill_at: int) -> bool:
    """Publish in a forked child that is killed before its `kill_at`-th file operation; True if it lived."""
    child = os.fork()
    if child == 0:
        check = die_at(kill_at)

        def watch(_: object, event: str, called: object) -> None:
            if event == "c_call" and getattr(called, "__name__", "") in FILE_OPERATIONS:
                check()

        sys.setprofile(watch)
        try:
            publish(root, marker)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL)
    return os.waitstatus_to_exitcode(status) == 0


@IN_FORKS
def test_a_writer_killed_at_any_file_operation_leaves_a_whole_state(tmp_path):
    expected = publish(str(tmp_path / "calm"), "new")
    calm = Store(str(tmp_path / "calm"))
    bytes_of = [calm.files.read(file.path) for file in calm.require("quarantine", PARTITION).files]
    outcomes = []
    for kill_at in range(1, 200):
        root = str(tmp_path / f"store{kill_at}")
        publish(root, "old")
        lived = publish_in_child(root, "new", kill_at)
        outcomes.append(state(root))
        store = Store(root)
        left = store.require("quarantine", PARTITION)
        assert read_version(store.files, left.key, left.version) == left
        assert publish(root, "new") == expected
        pointer = store.require("quarantine", PARTITION)
        assert [store.files.read(file.path) for file in pointer.files] == bytes_of
        assert [p.run_id for p in history(store.files, pointer.key)] == ["new", "old"]
        if lived:
            break
    assert lived
    assert len(outcomes) > 30  # three data files, history and pointer, several operations each
    assert outcomes == sorted(outcomes, reverse=True)  # old ... old new: one moment decides
    assert {"old", "new"} == set(outcomes)


@IN_FORKS
def test_a_writer_killed_before_the_first_publish_leaves_nothing(tmp_path):
    for kill_at in (3, 9, 15, 21):
        root = str(tmp_path / f"store{kill_at}")
        assert not publish_in_child(root, "new", kill_at)
        assert Store(root).pointer("quarantine", PARTITION) is None
        leftovers = [e.path for e in Store(root).files.entries("tables") if TEMPORARY_PREFIX in e.path]
        assert len(leftovers) <= 1
        publish(root, "new")
        assert state(root) == "new"


def run_writer(*arguments: object) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "PYTHONPATH": f"{SUPPORT.parents[1]}{os.pathsep}{SUPPORT}"}
    command = [sys.executable, str(SUPPORT / "store_writer.py"), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)


def wait_for(*processes: "subprocess.Popen[bytes]") -> list[tuple[int, str]]:
    return [(p.returncode, e.decode()) for p, (_, e) in [(p, p.communicate(timeout=120)) for p in processes]]


@pytest.mark.integration
def test_a_writer_killed_before_any_s3_request_leaves_a_whole_state(s3_root):
    publish(s3_root, "old")
    outcomes = []
    requests = 5  # three data files, history, pointer
    for kill_at in (2, 4, 5, 6):
        ((code, error),) = wait_for(run_writer(s3_root, "w", 1, kill_at))
        assert code == (0 if kill_at > requests else -signal.SIGKILL), error
        outcomes.append(state(s3_root))
    assert outcomes == ["old", "old", "old", "w0"]
    store = Store(s3_root)
    assert [p.run_id for p in history(store.files, "quarantine/dataset=a")] == ["w0", "old"]


# --- several writers


@IN_FORKS
def test_four_processes_on_one_partition_lose_nothing(tmp_path):
    root = str(tmp_path / "store")
    publish(root, "start")
    children = []
    for writer in range(4):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                for number in range(5):
                    publish(root, f"{writer}{number}")
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    while children:
        done, status = os.waitpid(-1, os.WNOHANG)
        if done:
            assert os.waitstatus_to_exitcode(status) == 0
            children.remove(done)
        assert len(state(root)) >= 2  # a reader beside the writers always finds one whole state
    check_chain(root, {f"{w}{n}" for w in range(4) for n in range(5)} | {"start"})


def check_chain(root: str, markers: set[str]) -> None:
    """Every publish is in the chain once, in the order of time, and each state can still be read."""
    store = Store(root)
    chain = list(history(store.files, "quarantine/dataset=a"))
    assert sorted(p.run_id for p in chain) == sorted(markers)
    assert chain[-1].previous is None
    times = [p.created_at for p in chain]
    assert times == sorted(times, reverse=True)
    assert len(set(times)) == len(times)
    for pointer in chain:
        assert set(store.read(pointer)["reason"].to_pylist()) == {pointer.run_id}
        assert as_of(store.files, pointer.key, pointer.created_at) == pointer


@pytest.mark.integration
def test_two_processes_on_one_s3_partition_lose_nothing(s3_root):
    results = wait_for(*[run_writer(s3_root, writer, 5) for writer in "ab"])
    assert [code for code, _ in results] == [0, 0], results
    check_chain(s3_root, {f"{w}{n}" for w in "ab" for n in range(5)})


@pytest.mark.parametrize("name", [name for name, spec in TABLES.items() if len(spec.partition_by) > 1])
def test_what_was_published_under_several_names_is_found_and_named_alike(tmp_path, name):
    store = Store(str(tmp_path))
    partition = {key: f"{key}-1" for key in TABLES[name].partition_by}
    published = store.publish(name, partition, TABLES[name].arrow_schema().empty_table())
    assert store.require(name, partition) == published == next(store.pointers(name))
    assert store.publish(name, partition, TABLES[name].arrow_schema().empty_table()).version == published.version
