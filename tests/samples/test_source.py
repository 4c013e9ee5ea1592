"""Which files a source has, and whether they changed."""

import os
from pathlib import Path

import fsspec
import pytest

from vsel_platform.errors import DataError
from vsel_platform.samples.source import (
    changed,
    cheap_fingerprint,
    content_fingerprint,
    hash_file,
    source_files,
    source_fingerprint,
    source_size,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.json", "a.jsonl", "sub/c.json", ".hidden.json", "_tmp/d.json", "notes.txt"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "data"


def names(files: list[str], folder: Path) -> list[str]:
    return [str(Path(file).relative_to(folder)) for file in files]


def test_a_file_is_its_own_source(folder: Path) -> None:
    assert source_files(str(folder / "notes.txt")) == [str(folder / "notes.txt")]


def test_a_directory_gives_its_visible_json_files_in_order(folder: Path) -> None:
    assert names(source_files(str(folder)), folder) == ["a.jsonl", "b.json", "sub/c.json"]


@pytest.mark.parametrize("suffix", ["arrow", "parquet"])
def test_table_files_come_before_the_descriptions_beside_them(folder: Path, suffix: str) -> None:
    (folder / f"data-1.{suffix}").touch()
    (folder / f"data-0.{suffix}").touch()
    assert names(source_files(str(folder)), folder) == [f"data-0.{suffix}", f"data-1.{suffix}"]


def test_a_pattern_gives_the_files_that_match(folder: Path) -> None:
    assert names(source_files(f"{folder}/*.json*"), folder) == ["a.jsonl", "b.json"]
    assert names(source_files(f"{folder}/**/c.json"), folder) == ["sub/c.json"]


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(folder: Path) -> None:
    (folder / "rows[1].json").touch()
    assert names(source_files(f"{folder}/rows[1].json"), folder) == ["rows[1].json"]


@pytest.mark.parametrize("source", ["gone.json", "*.csv", "empty"])
def test_a_source_without_files_is_an_error(folder: Path, source: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="no "):
        source_files(str(folder / source))


def test_files_of_another_file_system_keep_their_protocol() -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe("/rows-source/a.json", b"[1]")
    files = source_files("memory://rows-source")
    assert files == ["memory:///rows-source/a.json"]
    assert source_size(files) == 3
    assert len(hash_file(files[0])) == 64


def test_a_touched_file_has_not_changed(folder: Path) -> None:
    files = source_files(str(folder))
    before = source_fingerprint(files)
    os.utime(folder / "b.json", (1, 1))
    now = source_fingerprint(files, before)
    assert now.cheap != before.cheap
    assert not changed(before, now)


def test_a_file_with_other_bytes_has_changed_even_at_the_same_size(folder: Path) -> None:
    files = source_files(str(folder))
    before = source_fingerprint(files)
    (folder / "b.json").write_text("B.JSON")
    now = source_fingerprint(files, before)
    assert now.cheap != before.cheap
    assert changed(before, now)
    assert changed(None, now)


def test_a_replaced_file_of_the_same_size_and_time_is_noticed(folder: Path) -> None:
    files = source_files(str(folder))
    before = cheap_fingerprint(files)
    times = (folder / "b.json").stat()
    (folder / "new").write_text("B.JSON")
    os.utime(folder / "new", ns=(times.st_atime_ns, times.st_mtime_ns))
    (folder / "new").replace(folder / "b.json")
    assert cheap_fingerprint(files) != before


def test_bytes_are_read_only_when_the_cheap_fingerprint_differs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = source_files(str(folder))
    before = source_fingerprint(files)

    def read(_: str) -> str:
        raise AssertionError("the file was read")

    monkeypatch.setattr("vsel_platform.samples.source.hash_file", read)
    assert source_fingerprint(files, before) == before
    with pytest.raises(AssertionError):
        source_fingerprint(files)


def test_content_is_that_of_the_files_in_order(folder: Path) -> None:
    files = source_files(str(folder))
    assert source_fingerprint(files).content == content_fingerprint([hash_file(file) for file in files])
    assert source_fingerprint(files).content != source_fingerprint(files[::-1]).content


def test_a_file_that_is_gone_is_named(folder: Path) -> None:
    files = source_files(str(folder))
    (folder / "b.json").unlink()
    with pytest.raises(DataError, match=r"b\.json is gone"):
        cheap_fingerprint(files)
