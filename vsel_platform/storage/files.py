"""Files of a store, a directory or S3: whole files only, and compare-and-swap for pointers."""

import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from vsel_platform.errors import ConflictError, StorageError

TEMPORARY_PREFIX = ".tmp-"
PARALLEL_REQUESTS = 16
COPY_BYTES = 4 << 20
_CONFLICT_CODES = {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "412", "409"}
_CLIENT_LIBRARIES = ("botocore.", "aiobotocore.", "aiohttp.")


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a listing: path relative to the store, bytes, time of the last write [s since 1970]."""

    path: str
    bytes: int
    modified: float


class FileStore:
    """A directory or `s3://bucket/prefix`. Paths given to its methods are relative, with `/`."""

    def __init__(self, root: str) -> None:
        """Open the store; credentials and endpoint of S3 come from the environment (`AWS_*`).

        Raises StorageError for any other kind of file system.
        """
        self.root_url = root.rstrip("/")
        if "://" not in root:
            self.root_url = str(Path(root).absolute())
        options: dict[str, Any] = {"use_listings_cache": False} if root.startswith("s3://") else {}
        self.fs, self.root = fsspec.core.url_to_fs(self.root_url, **options)
        self.is_local = isinstance(self.fs, LocalFileSystem)
        self.is_s3 = "s3" in self.fs.protocol
        if not (self.is_local or self.is_s3):
            raise StorageError(f"{root}: a store is a directory or s3://bucket/prefix")

    def path(self, relative: str) -> str:
        """Path inside the file system."""
        return f"{self.root}/{relative}"

    def url(self, relative: str) -> str:
        """Full path or URL, for people and for other tools."""
        return f"{self.root_url}/{relative}"

    def exists(self, relative: str) -> bool:
        """Whether the file exists now (no cached listing)."""
        with _explained("look for", self.url(relative)):
            return bool(self.fs.exists(self.path(relative)))

    def read(self, relative: str) -> bytes:
        """Bytes of a file. Raises StorageError if it is missing."""
        with _explained("read", self.url(relative)):
            return bytes(self.fs.cat_file(self.path(relative)))

    def read_many(self, relatives: Iterable[str]) -> dict[str, bytes]:
        """Bytes of several small files, fetched side by side on S3; missing ones are left out."""
        names = list(relatives)
        if self.is_local:
            contents = [self._read_or_none(name) for name in names]
        else:
            with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
                contents = list(pool.map(self._read_or_none, names))
        return {name: data for name, data in zip(names, contents, strict=True) if data is not None}

    def _read_or_none(self, relative: str) -> bytes | None:
        with _explained("read", self.url(relative), missing_is_fine=True):
            return bytes(self.fs.cat_file(self.path(relative)))
        return None

    def size(self, relative: str) -> int:
        """Size in bytes. Raises StorageError if the file is missing."""
        with _explained("read", self.url(relative)):
            return int(self.fs.size(self.path(relative)))

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """All files below the folder `prefix` as (relative path, bytes), sorted; half-written ones excluded."""
        for entry in self.entries(prefix):
            if not entry.path.rpartition("/")[2].startswith(TEMPORARY_PREFIX):
                yield entry.path, entry.bytes

    def entries(self, prefix: str) -> Sequence[FileEntry]:
        """Everything below the folder `prefix`, temporary files of killed writers included, sorted by path."""
        if self.is_local:
            found = _local_entries(Path(self.root), Path(self.path(prefix)))
        else:
            with _explained("list", self.url(prefix)):
                listing = self.fs.find(self.path(prefix), detail=True)
            found = [
                FileEntry(path[len(self.root) + 1 :], int(info["size"] or 0), info["LastModified"].timestamp())
                for path, info in listing.items()
                if info["type"] == "file"  # a folder whose first file came while it was listed stands for itself
            ]
        return sorted(found, key=lambda entry: entry.path)

    def delete(self, relative: str) -> None:
        """Delete one file; a missing one is fine."""
        with _explained("delete", self.url(relative), missing_is_fine=True):
            self.fs.rm_file(self.path(relative))

    def delete_tree(self, relative: str) -> None:
        """Delete everything below a folder; a missing one is fine."""
        if self.is_local:
            with _explained("delete", self.url(relative), missing_is_fine=True):
                shutil.rmtree(self.path(relative))
            return
        with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
            list(pool.map(self.delete, [entry.path for entry in self.entries(relative)]))

    def write(self, relative: str, data: bytes) -> None:
        """Write a whole file: readers see nothing or all of it (local: temporary file, fsync, rename)."""
        with _explained("write", self.url(relative)):
            if self.is_local:
                _write_local(Path(self.path(relative)), [data])
            else:
                self.fs.pipe_file(self.path(relative), data)

    def put(self, relative: str, source: Path) -> None:
        """Write a whole file from a local one, in pieces (memory: a few MB)."""
        with _explained("write", self.url(relative)):
            if self.is_local:
                with source.open("rb") as file:
                    _write_local(Path(self.path(relative)), iter(lambda: file.read(COPY_BYTES), b""))
            else:
                self.fs.put_file(str(source), self.path(relative))

    def write_once(self, relative: str, data: bytes) -> None:
        """Write a file whose name says its content; a file that is there already is left alone."""
        if not self.exists(relative):
            self.write(relative, data)

    def read_versioned(self, relative: str) -> tuple[bytes, str] | None:
        """(bytes, token) of a small mutable file, None if it is missing.

        The token is taken BEFORE the bytes: if the file changes in between, the swap with it fails.
        """
        path = self.path(relative)
        with _explained("read", self.url(relative), missing_is_fine=True):
            if self.is_local:
                data = Path(path).read_bytes()
                return data, hashlib.sha256(data).hexdigest()
            info = self.fs.info(path)
            return bytes(self.fs.cat_file(path)), str(info.get("ETag", ""))
        return None

    def swap(self, relative: str, data: bytes, token: str | None) -> None:
        """Replace a file only if it is still the one `token` stands for (None: only if it is missing).

        Raises ConflictError if another writer came first.
        """
        with _explained("write", self.url(relative)):
            if self.is_local:
                self._swap_local(relative, data, token)
            else:
                self._swap_s3(relative, data, token)

    def _swap_local(self, relative: str, data: bytes, token: str | None) -> None:
        path = Path(self.path(relative))
        with _locked(Path(self.root) / ".locks" / hashlib.sha256(relative.encode()).hexdigest()[:16]):
            current = self.read_versioned(relative)
            if (current[1] if current else None) != token:
                raise ConflictError(f"{self.url(relative)} was replaced by another writer")
            _write_local(path, [data])

    def _swap_s3(self, relative: str, data: bytes, token: str | None) -> None:
        bucket, key, _ = self.fs.split_path(self.path(relative))
        condition = {"IfNoneMatch": "*"} if token is None else {"IfMatch": token}
        try:
            self.fs.call_s3("put_object", Bucket=bucket, Key=key, Body=data, **condition)
        except Exception as error:
            if _is_conflict(error):
                raise ConflictError(f"{self.url(relative)} was replaced by another writer") from error
            raise


@contextmanager
def _explained(action: str, url: str, *, missing_is_fine: bool = False) -> Iterator[None]:
    """Turn errors of the file system and of its client libraries into StorageError."""
    try:
        yield
    except FileNotFoundError as error:
        if not missing_is_fine:
            raise StorageError(f"cannot {action} {url}: the file or bucket does not exist") from error
    except OSError as error:
        raise StorageError(f"cannot {action} {url}: {error.strerror or error}") from error
    except Exception as error:
        if not f"{type(error).__module__}.".startswith(_CLIENT_LIBRARIES):
            raise
        raise StorageError(f"cannot {action} {url}: {error} (check the AWS_* environment)") from error


def _is_conflict(error: BaseException | None) -> bool:
    while error is not None:
        response = getattr(error, "response", None) or {}
        code = str(response.get("Error", {}).get("Code", ""))
        status = str(response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
        if code in _CONFLICT_CODES or status in _CONFLICT_CODES:
            return True
        error = error.__cause__
    return False


def _local_entries(root: Path, directory: Path) -> list[FileEntry]:
    """Files below `directory`; a file that vanishes while we look (a renamed temporary one) is left out."""
    found = []
    for folder, _, names in os.walk(directory):
        for name in names:
            path = Path(folder, name)
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            found.append(FileEntry(path.relative_to(root).as_posix(), status.st_size, status.st_mtime))
    return found


def _write_local(path: Path, data: Iterable[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            file.writelines(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
