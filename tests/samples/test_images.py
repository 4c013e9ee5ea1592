"""Images below a root: found, measured, identified, or refused without harm."""

import hashlib
import os
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from PIL import Image

from vsel_platform.config import ImageSettings
from vsel_platform.samples.images import ImageIndex, default_root, path_identity
from vsel_platform.samples.sample import EmbeddedImage, ImageReference, Reason, RefusedRow

Png = Callable[..., bytes]


@pytest.fixture
def root(tmp_path: Path, png: Png) -> Path:
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.png").write_bytes(png(1))
    (folder / "sub" / "b.jpg").write_bytes(png(2, (20, 10), "JPEG"))
    (tmp_path / "secret.png").write_bytes(png(3))
    return folder


def index(root: Path, **settings: Any) -> ImageIndex:
    return ImageIndex(str(root), ImageSettings.model_validate(settings))


def reason(found: ImageIndex, reference: ImageReference) -> Reason:
    with pytest.raises(RefusedRow) as refused:
        found.get(reference)
    return refused.value.reason


@pytest.mark.parametrize("check", ["header", "full"])
def test_an_image_is_identified_by_its_bytes_and_measured(root: Path, check: str) -> None:
    data = (root / "sub" / "b.jpg").read_bytes()
    record = index(root, check=check).get("sub/b.jpg")
    assert record.image_id == hashlib.sha256(data).hexdigest()
    assert (record.width, record.height, record.format, record.n_bytes) == (20, 10, "JPEG", len(data))
    assert record.path == str(root / "sub" / "b.jpg")
    assert record.source_path == "sub/b.jpg"


def test_without_a_check_nothing_is_opened_and_identity_is_the_path(root: Path) -> None:
    record = index(root, check="none").get("missing/c.png")
    assert record.image_id == path_identity("missing/c.png") == hashlib.sha256(b"path:missing/c.png").hexdigest()
    assert record.n_bytes is record.width is record.format is None


@pytest.mark.parametrize("same", ["./sub/b.jpg", "sub//b.jpg", "sub/./b.jpg"])
@pytest.mark.parametrize("check", ["header", "none"])
def test_spellings_of_one_path_are_one_image(root: Path, check: str, same: str) -> None:
    found = index(root, check=check)
    assert found.get(same).image_id == found.get("sub/b.jpg").image_id


@pytest.mark.parametrize("check", ["header", "none"])
def test_a_path_below_the_root_may_be_absolute(root: Path, check: str) -> None:
    found = index(root, check=check)
    assert found.get(f"{root}/a.png").image_id == found.get("a.png").image_id


@pytest.mark.parametrize("check", ["header", "full", "none"])
@pytest.mark.parametrize(
    "reference",
    [
        "../secret.png",
        "sub/../../secret.png",
        "sub/../a.png",
        "/etc/passwd",
        "a.png\0.jpg",
        "\0",
        "https://example.org/a.png",
        "file:///etc/passwd",
        "s3://bucket/a.png",
        "//a.png",
    ],
)
def test_a_path_that_leads_outside_is_refused(root: Path, check: str, reference: str) -> None:
    assert reason(index(root, check=check), reference) is Reason.IMAGE_OUTSIDE_ROOT


def test_links_are_followed_inside_the_root_only(root: Path, tmp_path: Path) -> None:
    (root / "in.png").symlink_to(root / "a.png")
    (root / "out.png").symlink_to(tmp_path / "secret.png")
    (root / "up").symlink_to(tmp_path)
    found = index(root)
    assert found.get("in.png").image_id == found.get("a.png").image_id
    assert reason(found, "out.png") is Reason.IMAGE_OUTSIDE_ROOT
    assert reason(found, "up/secret.png") is Reason.IMAGE_OUTSIDE_ROOT


def test_a_root_that_is_a_link_is_a_root(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    assert index(tmp_path / "link").get("a.png").image_id == index(root).get("a.png").image_id


def test_missing_and_unreadable_files_are_told_apart(root: Path, png: Png) -> None:
    (root / "empty.png").write_bytes(b"")
    (root / "text.png").write_text("not an image")
    (root / "broken.png").write_bytes(png()[:20])
    os.mkfifo(root / "pipe.png")
    found = index(root)
    assert reason(found, "gone.png") is Reason.IMAGE_MISSING
    assert reason(found, "a.png/b.png") is Reason.IMAGE_UNREADABLE
    for name in ("empty.png", "text.png", "broken.png", "pipe.png", "sub", "x" * 300):
        assert reason(found, name) is Reason.IMAGE_UNREADABLE


def test_only_a_full_check_finds_damaged_pixels(root: Path, png: Png) -> None:
    data = png(1, (300, 200), "JPEG")
    (root / "cut.jpg").write_bytes(data[: len(data) // 2])
    assert index(root, check="header").get("cut.jpg").width == 300
    assert reason(index(root, check="full"), "cut.jpg") is Reason.IMAGE_UNREADABLE


def bomb(width: int, height: int) -> bytes:
    """A PNG file of a few hundred bytes that claims to have width x height pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 100_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("check", ["header", "full"])
@pytest.mark.parametrize(("width", "height"), [(10_000, 10_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_a_bomb_is_refused_without_decoding(
    root: Path, monkeypatch: pytest.MonkeyPatch, check: str, width: int, height: int
) -> None:
    def load(_: Any) -> None:
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(Image.Image, "load", load)
    (root / "bomb.png").write_bytes(bomb(width, height))
    assert reason(index(root, check=check), "bomb.png") is Reason.IMAGE_TOO_MANY_PIXELS


@pytest.mark.filterwarnings("error")
def test_the_limit_on_pixels_is_the_project_files(root: Path, png: Png) -> None:
    (root / "big.png").write_bytes(bomb(10_000, 10_000))
    assert index(root, max_pixels=10**8).get("big.png").width == 10_000
    assert reason(index(root, max_pixels=11), "a.png") is Reason.IMAGE_TOO_MANY_PIXELS
    assert index(root, max_pixels=12).get("a.png").width == 4


def test_a_file_that_is_too_large_is_not_read(root: Path) -> None:
    with (root / "huge.png").open("wb") as file:
        file.truncate(1 << 40)
    started = time.monotonic()
    assert reason(index(root), "huge.png") is Reason.IMAGE_TOO_MANY_BYTES
    assert time.monotonic() - started < 1


@pytest.mark.parametrize(
    ("form", "name"), [("TIFF", "x.png"), ("ICO", "x.png"), ("EPS", "x.eps"), ("PDF", "x.pdf"), ("PSD", None)]
)
def test_formats_that_are_not_allowed_are_named(root: Path, form: str, name: str | None) -> None:
    path = root / (name or "x.psd")
    if form == "PSD":
        path.write_bytes(b"8BPS" + b"\0" * 50)
    else:
        Image.new("RGB", (16, 16)).save(path, form)
    with pytest.raises(RefusedRow, match=form) as refused:
        index(root).get(path.name)
    assert refused.value.reason is Reason.IMAGE_FORMAT_NOT_ALLOWED


def test_an_allowed_format_can_be_withdrawn(root: Path) -> None:
    found = index(root, formats=["PNG"])
    assert found.get("a.png").format == "PNG"
    assert reason(found, "sub/b.jpg") is Reason.IMAGE_FORMAT_NOT_ALLOWED


def test_every_path_is_read_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = index(root)
    found.prepare(["a.png", "sub/b.jpg", "a.png", "gone.png"])
    (root / "a.png").unlink()
    assert found.get("a.png").format == "PNG"
    assert reason(found, "gone.png") is Reason.IMAGE_MISSING


def test_embedded_images_are_checked_like_files(root: Path, png: Png) -> None:
    def embedded(data: bytes) -> EmbeddedImage:
        return EmbeddedImage(hashlib.sha256(data).hexdigest(), "name.png", data)

    data = png(9)
    record = index(root).get(embedded(data))
    assert (record.image_id, record.width, record.source_path) == (hashlib.sha256(data).hexdigest(), 4, "name.png")
    assert reason(index(root), embedded(bomb(60_000, 60_000))) is Reason.IMAGE_TOO_MANY_PIXELS
    assert reason(index(root, max_bytes=10), embedded(data)) is Reason.IMAGE_TOO_MANY_BYTES
    assert index(root, check="none").get(embedded(b"anything")).width is None


def test_images_of_another_file_system(png: Png) -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe("/bucket/images/a.png", png(4))
    fs.pipe("/bucket/secret.png", png(5))
    found = ImageIndex("memory://bucket/images", ImageSettings())
    assert found.get("a.png").path == "memory:///bucket/images/a.png"
    assert found.get("memory://bucket/images/a.png").image_id == hashlib.sha256(png(4)).hexdigest()
    assert reason(found, "b.png") is Reason.IMAGE_MISSING
    for outside in ("../secret.png", "/bucket/secret.png", "memory://bucket/secret.png", "s3://bucket/images/a.png"):
        assert reason(found, outside) is Reason.IMAGE_OUTSIDE_ROOT


def test_five_thousand_images_take_seconds(tmp_path: Path, png: Png) -> None:
    data = png(0, (64, 64))
    names = [f"{number}.png" for number in range(5_000)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(data + str(number).encode())
    found = index(tmp_path)
    started = time.monotonic()
    found.prepare(names)
    assert len({found.get(name).image_id for name in names}) == len(names)
    assert time.monotonic() - started < 20


def test_the_default_root_is_the_directory_of_the_source(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text("[]")
    assert default_root(str(tmp_path / "rows.json")) == str(tmp_path)
    assert default_root(str(tmp_path)) == str(tmp_path)
    assert default_root(f"{tmp_path}/*.json") == str(tmp_path)
    assert default_root(f"{tmp_path}/ro*.json") == str(tmp_path)
    assert default_root("memory://bucket/rows.json") == "memory:///bucket"
