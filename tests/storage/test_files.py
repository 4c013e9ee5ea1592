import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vsel_platform.errors import ConflictError, StorageError
from vsel_platform.storage.files import TEMPORARY_PREFIX, FileStore


def test_a_file_is_read_back_and_replaced_as_a_whole(root):
    files = FileStore(root)
    files.write("a/b.json", b"one")
    files.write("a/b.json", b"three")
    assert files.read("a/b.json") == b"three"
    assert files.size("a/b.json") == 5
    assert files.exists("a/b.json")
    assert not files.exists("a/c.json")


def test_write_once_leaves_an_existing_file_alone(root):
    files = FileStore(root)
    files.write_once("x", b"first")
    files.write_once("x", b"second")
    assert files.read("x") == b"first"


def test_put_copies_a_local_file(root, tmp_path):
    source = tmp_path / "weights.bin"
    source.write_bytes(os.urandom(9 << 20))
    files = FileStore(root)
    files.put("big", source)
    assert files.read("big") == source.read_bytes()


def test_a_missing_file_is_named(root):
    files = FileStore(root)
    with pytest.raises(StorageError, match="no/such"):
        files.read("no/such")
    with pytest.raises(StorageError, match="no/such"):
        files.size("no/such")
    assert files.read_versioned("no/such") is None


def test_read_many_leaves_missing_files_out(root):
    files = FileStore(root)
    for name in ("p/1", "p/[2]", "p/*"):
        files.write(name, name.encode())
    assert files.read_many(["p/1", "p/[2]", "p/*", "p/4"]) == {"p/1": b"p/1", "p/[2]": b"p/[2]", "p/*": b"p/*"}
    assert files.read_many([]) == {}


def test_a_listing_is_sorted_and_keeps_to_its_folder(root):
    files = FileStore(root)
    for name in ("t/b", "t/a/x", "t2/c", "t/a/y"):
        files.write(name, b"12")
    assert list(files.list("t")) == [("t/a/x", 2), ("t/a/y", 2), ("t/b", 2)]
    assert list(files.list("t/a")) == [("t/a/x", 2), ("t/a/y", 2)]
    assert list(files.list("nothing")) == []


def test_entries_know_when_they_were_written(root):
    files = FileStore(root)
    files.write("t/a", b"1")
    (entry,) = files.entries("t")
    assert abs(entry.modified - time.time()) < 60


def test_delete_and_delete_tree_accept_what_is_missing(root):
    files = FileStore(root)
    for name in ("w/[1]/a", "w/[1]/b", "w/1/c"):
        files.write(name, b"")
    files.delete("w/1/c")
    files.delete("w/1/c")
    files.delete_tree("w/[1]")
    files.delete_tree("w/[1]")
    assert list(files.list("w")) == []


def test_swap_refuses_a_stale_token(root):
    files = FileStore(root)
    files.swap("p", b"1", None)
    with pytest.raises(ConflictError):
        files.swap("p", b"2", None)
    _, token = files.read_versioned("p")
    files.swap("p", b"2", token)
    with pytest.raises(ConflictError):
        files.swap("p", b"3", token)
    assert files.read("p") == b"2"


def test_swap_with_a_token_refuses_a_file_that_was_deleted(root):
    files = FileStore(root)
    files.swap("p", b"1", None)
    _, token = files.read_versioned("p")
    files.delete("p")
    with pytest.raises(ConflictError):
        files.swap("p", b"2", token)


def test_of_many_simultaneous_swaps_exactly_one_wins(root):
    files = FileStore(root)
    barrier = threading.Barrier(8)

    def attempt(number: int) -> bool:
        barrier.wait()
        try:
            files.swap("race", str(number).encode(), None)
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(attempt, range(8)))
    assert sum(won) == 1
    assert files.read("race") == str(won.index(True)).encode()


def test_other_file_systems_are_refused():
    with pytest.raises(StorageError, match="directory or s3"):
        FileStore("memory://store")


def test_half_written_files_are_not_listed(tmp_path):
    files = FileStore(str(tmp_path))
    files.write("t/a", b"1")
    (tmp_path / "t" / f"{TEMPORARY_PREFIX}1").write_bytes(b"half")
    assert list(files.list("t")) == [("t/a", 1)]
    assert len(files.entries("t")) == 2


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    files = FileStore(str(tmp_path))
    files.write("t/a", b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        files.write("t/a", b"new")
    assert [entry.path for entry in files.entries("t")] == ["t/a"]
    assert files.read("t/a") == b"old"


def test_files_are_readable_by_whom_the_umask_allows(tmp_path):
    before = os.umask(0o022)
    try:
        FileStore(str(tmp_path)).write("a", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


def test_a_listing_survives_files_that_vanish(tmp_path):
    files = FileStore(str(tmp_path))
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            for number in range(20):
                files.write(f"t/{number}", b"x")

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(100):
            list(files.list("t"))
    finally:
        stop.set()
        thread.join()


def test_a_relative_root_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = FileStore("store")
    files.write("a", b"1")
    assert Path(files.url("a")) == tmp_path / "store" / "a"


@pytest.mark.integration
def test_a_missing_bucket_is_an_error_with_advice(s3_server):
    with pytest.raises(StorageError, match="bucket does not exist"):
        FileStore("s3://no-such-bucket-here/x").write("a", b"1")


@pytest.mark.integration
def test_an_unreachable_endpoint_is_a_storage_error(s3_server, monkeypatch):
    from s3fs import S3FileSystem

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    S3FileSystem.clear_instance_cache()
    try:
        with pytest.raises(StorageError, match="AWS_"):
            FileStore("s3://bucket/x").read("a")
    finally:
        S3FileSystem.clear_instance_cache()


def test_a_folder_that_fills_while_it_is_listed_is_no_file(s3_root, monkeypatch):
    files = FileStore(s3_root)
    folder = files.path("work/a")
    monkeypatch.setattr(
        files.fs, "find", lambda path, detail: {folder: {"name": folder, "type": "directory", "size": 0}}
    )
    assert list(files.list("work/a")) == []
