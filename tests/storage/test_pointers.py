from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsel_platform.errors import ConflictError, StorageError
from vsel_platform.storage import pointers
from vsel_platform.storage.files import FileStore
from vsel_platform.storage.pointers import (
    DataFile,
    Pointer,
    as_of,
    history,
    history_path,
    new_version,
    parse_reference,
    partition_key,
    pointer_from_bytes,
    read_pointer,
    read_version,
    swap_pointer,
    version_time,
)

KEY = "manifest/dataset=a"


def make(rows: int = 1) -> Pointer:
    return Pointer("manifest", {"dataset": "a"}, [DataFile("tables/x", rows, 2)], rows, f"v{rows}")


def test_a_pointer_survives_its_own_bytes():
    pointer = make()
    assert pointer_from_bytes(pointer.to_bytes()) == pointer


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"files": [{"path": 1}]}', b'{"files": []}', b"\xff"])
def test_a_damaged_pointer_is_refused(data):
    with pytest.raises(StorageError, match="damaged pointer"):
        pointer_from_bytes(data)


@pytest.mark.parametrize("value", ["", ".", "..", "a/b", "a\x00b", "a\nb", "a\\b", "\x7f"])
def test_a_partition_value_must_be_a_file_name(value):
    with pytest.raises(StorageError, match="not a file name"):
        partition_key("manifest", {"dataset": value})


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["C"], exclude_characters="/\\"), min_size=1))
def test_a_reference_is_parsed_back(value):
    if value in (".", ".."):
        return
    key = partition_key("losses", {"fingerprint": value, "shard": "s 1"})
    version = new_version()
    assert parse_reference(f"{key}@{version}") == (key, version)


@pytest.mark.parametrize(
    "reference",
    ["", "manifest", "manifest/dataset=a", "manifest/dataset=a@", "../x@20260101T000000000000-00000000",
     "manifest/dataset=a@../../etc/passwd", "manifest/../x=1@20260101T000000000000-00000000"],
)  # fmt: skip
def test_what_is_not_a_reference_is_refused(reference):
    with pytest.raises(StorageError, match="not a pointer reference"):
        parse_reference(reference)


def test_the_first_swap_has_no_predecessor_and_later_ones_chain(root):
    files = FileStore(root)
    first = swap_pointer(files, make(1))
    second = swap_pointer(files, make(2))
    assert first.previous is None
    assert second.previous == first.version
    assert read_pointer(files, KEY) == second
    assert [p.version for p in history(files, KEY)] == [second.version, first.version]
    assert read_version(files, KEY, first.version) == first


def test_versions_sort_by_time_and_say_it(tmp_path):
    files = FileStore(str(tmp_path))
    chain = [swap_pointer(files, make(n)) for n in range(5)]
    assert sorted(p.version for p in chain) == [p.version for p in chain]
    for pointer in chain:
        assert version_time(pointer.version) == datetime.fromisoformat(pointer.created_at)


def test_a_chain_never_runs_backwards_when_a_clock_is_wrong(tmp_path, monkeypatch):
    files = FileStore(str(tmp_path))

    class Ahead(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(days=1)

    with monkeypatch.context() as patch:
        patch.setattr(pointers, "datetime", Ahead)
        first = swap_pointer(files, make(1))
    second = swap_pointer(files, make(2))
    assert second.created_at > first.created_at
    assert as_of(files, KEY, first.created_at) == first
    assert as_of(files, KEY, second.created_at) == second


def test_as_of_gives_what_was_current_then(root):
    files = FileStore(root)
    before = datetime.now(UTC).isoformat()
    first = swap_pointer(files, make(1))
    second = swap_pointer(files, make(2))
    assert as_of(files, KEY, before) is None
    assert as_of(files, KEY, first.created_at) == first
    between = datetime.fromisoformat(second.created_at) - timedelta(microseconds=1)
    assert as_of(files, KEY, between.isoformat()) == first
    assert as_of(files, KEY, "2999-01-01") == second
    assert as_of(files, KEY, "2000-01-01") is None
    assert as_of(files, "manifest/dataset=other", "2999-01-01") is None


def test_a_time_without_an_offset_is_utc(tmp_path):
    files = FileStore(str(tmp_path))
    first = swap_pointer(files, make(1))
    naive = datetime.fromisoformat(first.created_at).replace(tzinfo=None).isoformat()
    assert as_of(files, KEY, naive) == first


def test_as_of_says_when_the_state_was_collected(tmp_path):
    files = FileStore(str(tmp_path))
    first = swap_pointer(files, make(1))
    second = swap_pointer(files, make(2))
    files.delete(history_path(KEY, first.version))
    assert as_of(files, KEY, second.created_at) == second
    with pytest.raises(StorageError, match="garbage collection"):
        as_of(files, KEY, first.created_at)


def test_what_is_not_a_time_is_refused(tmp_path):
    files = FileStore(str(tmp_path))
    swap_pointer(files, make(1))
    with pytest.raises(StorageError, match="yesterday"):
        as_of(files, KEY, "yesterday")


class LostAnswer(FileStore):
    """A store that takes the first swap but answers as if another writer had come first."""

    lost = False

    def swap(self, relative: str, data: bytes, token: str | None) -> None:
        super().swap(relative, data, token)
        if not self.lost:
            self.lost = True
            raise ConflictError("412")


def test_a_swap_whose_answer_was_lost_is_not_made_twice(tmp_path):
    files = LostAnswer(str(tmp_path))
    published = swap_pointer(files, make(1))
    assert read_pointer(files, KEY) == published
    assert [p.version for p in history(files, KEY)] == [published.version]


class AlwaysSecond(FileStore):
    """A store on which another writer is always faster."""

    def swap(self, relative: str, data: bytes, token: str | None) -> None:
        raise ConflictError("412")


def test_a_writer_that_never_wins_gives_up(tmp_path, monkeypatch):
    monkeypatch.setattr(pointers.time, "sleep", lambda _: None)
    with pytest.raises(ConflictError, match="3 times"):
        swap_pointer(AlwaysSecond(str(tmp_path)), make(1), attempts=3)


def test_a_partition_has_one_key_whatever_the_order_of_its_names():
    assert partition_key("t", {"b": "1", "a": "2"}) == partition_key("t", {"a": "2", "b": "1"}) == "t/a=2/b=1"
