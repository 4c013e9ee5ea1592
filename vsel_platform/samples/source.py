"""Source files of a dataset: which they are, in which order, and whether they changed."""

import glob
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import fsspec

from vsel_platform.errors import DataError
from vsel_platform.identity import fingerprint

JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
PARQUET_SUFFIXES = (".parquet",)
ARROW_SUFFIXES = (".arrow",)
HASH_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class SourceFingerprint:
    """State of source files: `cheap` from names, sizes and times; `content` from their bytes."""

    cheap: str
    content: str


def source_files(source: str) -> list[str]:
    """Files of a source (file, directory or glob; local or URL), sorted: the order of positions.

    A directory gives its Parquet files, or else its Arrow files (`datasets.save_to_disk`), or else its JSON
    files, at any depth. Hidden files are left out. Raises DataError if there are none.
    """
    fs, path = fsspec.core.url_to_fs(source)
    if fs.isdir(path):
        found = _directory_files(path, fs.find(path))
    elif fs.isfile(path):
        found = [path]
    elif glob.has_magic(path):
        found = [name for name in fs.glob(path) if fs.isfile(name) and not PurePosixPath(name).name.startswith(".")]
    else:
        raise DataError(f"no file at {source}; check `source` of the dataset in the project file")
    if not found:
        raise DataError(f"no .json, .jsonl, .ndjson, .parquet or .arrow file in {source}")
    url = "://" in source
    return [fs.unstrip_protocol(name) if url else name for name in sorted(found)]


def _directory_files(root: str, names: Iterable[str]) -> list[str]:
    inside = {name: PurePosixPath(name[len(root) :]).parts for name in names}
    visible = [n for n, parts in inside.items() if not any(p.startswith((".", "_")) for p in parts)]
    for suffixes in (PARQUET_SUFFIXES, ARROW_SUFFIXES, JSON_SUFFIXES):
        found = [name for name in visible if name.lower().endswith(suffixes)]
        if found:
            return found
    return []


def source_size(files: Iterable[str]) -> int:
    """Size of all files together [bytes]."""
    return sum(int(_info(file)["size"] or 0) for file in files)


def cheap_fingerprint(files: Iterable[str]) -> str:
    """Fingerprint of names, sizes, and modification times (local: with inode) or entity tags."""
    states = []
    for file in files:
        info = _info(file)
        stamp = info.get("ETag") or info.get("etag") or [info.get("mtime"), info.get("ino")]
        states.append([file, info["size"], stamp])
    return fingerprint(source=states)


def _info(file: str) -> dict[str, Any]:
    fs, path = fsspec.core.url_to_fs(file, **_fresh(file))
    try:
        return dict(fs.info(path))
    except FileNotFoundError as error:
        raise DataError(f"source file {file} is gone") from error


def _fresh(file: str) -> dict[str, Any]:
    return {"use_listings_cache": False} if file.startswith("s3://") else {}


def hash_file(file: str) -> str:
    """sha256 (hex) of a file's bytes, read in blocks."""
    import hashlib

    digest = hashlib.sha256()
    with fsspec.open(file, "rb", **_fresh(file)) as stream:
        while block := stream.read(HASH_BYTES):
            digest.update(block)
    return digest.hexdigest()


def content_fingerprint(digests: Iterable[str]) -> str:
    """Fingerprint of the sha256 of each file, in order."""
    return fingerprint(contents=list(digests))


def source_fingerprint(files: list[str], previous: SourceFingerprint | None = None) -> SourceFingerprint:
    """State of the files now; their bytes are read only if names, sizes or times differ from `previous`."""
    cheap = cheap_fingerprint(files)
    if previous is not None and previous.cheap == cheap:
        return previous
    return SourceFingerprint(cheap, content_fingerprint(hash_file(file) for file in files))


def changed(previous: SourceFingerprint | None, now: SourceFingerprint) -> bool:
    """Whether the bytes differ; a file that was only touched or moved has not changed."""
    return previous is None or previous.content != now.content
