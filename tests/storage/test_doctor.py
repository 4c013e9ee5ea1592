import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from careless_s3 import careless_s3
from s3_server import s3_settings

from vsel_platform.errors import ConflictError, StorageError
from vsel_platform.storage import doctor
from vsel_platform.storage.doctor import Finding, diagnose
from vsel_platform.storage.files import FileStore
from vsel_platform.storage.race import race


def by_check(findings: list[Finding]) -> dict[str, Finding]:
    assert len({f.check for f in findings}) == len(findings)
    return {f.check: f for f in findings}


def test_a_good_store_may_have_several_writers_and_nothing_is_left_behind(root):
    found = by_check(diagnose(root))
    assert found["store"].status == "ok"
    assert found["conditional writes"].status == "ok"
    assert found["conditional writes"].detail.startswith("several writers: 10 rounds of 8 writers: exactly one won")
    assert FileStore(root).entries(".doctor") == []
    assert all(f.status == "ok" or f.advice for f in found.values())


@pytest.mark.integration
@pytest.mark.parametrize("mode", ["ignores", "checks_first"])
def test_a_store_that_loses_updates_is_for_one_writer_only(s3_server, s3_root, mode):
    with careless_s3(s3_server, mode) as endpoint, s3_settings(endpoint):
        files = FileStore(s3_root)
        files.write("seen", b"through the proxy")
        report = race(files, "race", rounds=2)
        assert not report.safe
        assert report.bad_creates == report.bad_replaces == 2
        if mode == "checks_first":  # a store of this kind looks good as long as writers come one by one
            files.swap("alone", b"1", None)
            with pytest.raises(ConflictError):
                files.swap("alone", b"2", None)
        found = by_check(diagnose(s3_root)) if mode == "ignores" else {}
    assert FileStore(s3_root).read("seen") == b"through the proxy"
    if found:
        assert found["conditional writes"].status == "warn"
        assert found["conditional writes"].detail.startswith("one writer only: ")
        assert "one writer at a time" in found["conditional writes"].advice


@pytest.mark.integration
def test_a_missing_bucket_is_unusable(s3_server):
    found = by_check(diagnose("s3://no-such-bucket-here/x"))
    assert found["store"].status == "fail"
    assert "AWS_" in found["store"].advice
    assert "conditional writes" not in found


def test_a_path_that_is_a_file_is_unusable(tmp_path):
    (tmp_path / "file").write_text("")
    found = by_check(diagnose(str(tmp_path / "file")))
    assert found["store"].status == "fail"
    assert found["store"].advice


def test_a_store_that_cannot_delete_is_usable_with_a_warning(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise StorageError("deletes are denied")

    monkeypatch.setattr(FileStore, "delete_tree", refuse)
    found = by_check(diagnose(str(tmp_path)))
    assert found["store"].status == "ok"
    assert found["store deletes"].status == "warn"


@pytest.mark.parametrize(("gib", "status"), [(500, "ok"), (5, "warn"), (0.5, "fail")])
def test_free_space_is_judged(tmp_path, monkeypatch, gib, status):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, int(gib * 2**30)))
    found = by_check(diagnose(str(tmp_path / "not" / "there" / "yet")))
    assert found["disk"].status == status
    assert str(tmp_path) in found["disk"].detail


@pytest.mark.parametrize(
    ("name", "version", "status"),
    [
        ("duckdb", "1.5.5", "ok"),
        ("duckdb", "1.5.6", "warn"),
        ("duckdb", None, "fail"),
        ("torch", "2.13.0+cu130", "ok"),
        ("torch", "2.15.0", "warn"),
        ("sqlalchemy", "2.0.58", "ok"),
        ("sqlalchemy", "2.1.9", "warn"),
    ],
)
def test_pinned_packages_are_compared(monkeypatch, tmp_path, name, version, status):
    known = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda asked: version if asked == name else known(asked))
    finding = by_check(diagnose(str(tmp_path)))[name]
    assert finding.status == status
    assert finding.status == "ok" or "constraints.txt" in finding.advice


def test_dagsters_storage_is_named(monkeypatch, tmp_path):
    monkeypatch.delenv("DAGSTER_PG_HOST", raising=False)
    assert "SQLite" in by_check(diagnose(str(tmp_path)))["dagster storage"].detail
    monkeypatch.setenv("DAGSTER_PG_HOST", "db.example")
    assert by_check(diagnose(str(tmp_path)))["dagster storage"].detail == "PostgreSQL at db.example"


def test_decoders_are_tried(monkeypatch, tmp_path):
    from PIL import Image

    assert by_check(diagnose(str(tmp_path)))["image decoders"].detail == "PNG, JPEG, WEBP, GIF, BMP"

    def broken(*_: object, **__: object) -> None:
        raise OSError("no libwebp")

    monkeypatch.setitem(Image.OPEN, "WEBP", (broken, lambda _: True))
    finding = by_check(diagnose(str(tmp_path)))["image decoders"]
    assert finding.status == "fail"
    assert "WEBP" in finding.detail


def test_the_device_is_named(tmp_path):
    assert "threads" in by_check(diagnose(str(tmp_path)))["device"].detail or Path("/dev/nvidia0").exists()
