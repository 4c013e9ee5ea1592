"""Files of a store on any fsspec file system: whole files only, and compare-and-swap for pointers."""

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from vsel_platform.errors import ConflictError, StorageError

_CONFLICT_CODES = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}


class FileStore:
    """A directory or `s3://bucket/prefix`. Paths given to its methods are relative, with `/`."""

    def __init__(self, root: str) -> None:
        """Open the store; credentials and endpoint of S3 come from the environment (`AWS_*`)."""
        self.root_url = root.rstrip("/")
        if "://" not in root:
            self.root_url = str(Path(root).absolute())
        options: dict[str, Any] = {"use_listings_cache": False} if root.startswith("s3://") else {}
        self.fs, self.root = fsspec.core.url_to_fs(self.root_url, **options)
        self.is_local = isinstance(self.fs, LocalFileSystem)
        self.is_s3 = "s3" in (self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,))

    def path(self, relative: str) -> str:
        """Path inside the file system."""
        return f"{self.root}/{relative}"

    def url(self, relative: str) -> str:
        """Full path or URL, for people and for other tools."""
        return f"{self.root_url}/{relative}"

    def exists(self, relative: str) -> bool:
        """Whether the file exists now (no cached listing)."""
        return bool(self.fs.exists(self.path(relative)))

    def read(self, relative: str) -> bytes:
        """Bytes of a file. Raises StorageError if it is missing."""
        try:
            return bytes(self.fs.cat_file(self.path(relative)))
        except FileNotFoundError as error:
            raise StorageError(f"missing file {self.url(relative)}") from error

    def size(self, relative: str) -> int:
        """Size in bytes."""
        return int(self.fs.size(self.path(relative)))

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """All files below `prefix` as (relative path, bytes), sorted by path."""
        base = self.path(prefix)
        if not self.fs.exists(base):
            return
        found = self.fs.find(base, detail=True)
        for path in sorted(found):
            yield path[len(self.root) + 1 :], int(found[path]["size"] or 0)

    def delete(self, relative: str) -> None:
        """Delete one file; a missing one is fine."""
        try:
            self.fs.rm_file(self.path(relative))
        except FileNotFoundError:
            return

    def delete_tree(self, relative: str) -> None:
        """Delete everything below a prefix."""
        if self.fs.exists(self.path(relative)):
            self.fs.rm(self.path(relative), recursive=True)

    def write(self, relative: str, data: bytes) -> None:
        """Write a whole file: readers see nothing or all of it (local: temporary file, fsync, rename)."""
        if self.is_local:
            _write_local(Path(self.path(relative)), data)
        else:
            self.fs.pipe_file(self.path(relative), data)

    def write_once(self, relative: str, data: bytes) -> None:
        """Write a file whose name says its content; a file that is there already is left alone."""
        if not self.exists(relative):
            self.write(relative, data)

    def read_versioned(self, relative: str) -> tuple[bytes, str] | None:
        """(bytes, token) of a small mutable file, None if it is missing.

        The token is taken BEFORE the bytes: if the file changes in between, the swap with it fails.
        """
        path = self.path(relative)
        try:
            if self.is_local:
                data = Path(path).read_bytes()
                return data, hashlib.sha256(data).hexdigest()
            info = self.fs.info(path)
            return bytes(self.fs.cat_file(path)), str(info.get("ETag", ""))
        except FileNotFoundError:
            return None

    def swap(self, relative: str, data: bytes, token: str | None) -> None:
        """Replace a file only if it is still the one `token` stands for (None: only if it is missing).

        Raises ConflictError if another writer came first.
        """
        if self.is_local:
            self._swap_local(relative, data, token)
        elif self.is_s3:
            self._swap_s3(relative, data, token)
        else:
            raise StorageError(f"{self.root_url}: only directories and s3:// can be written")

    def _swap_local(self, relative: str, data: bytes, token: str | None) -> None:
        path = Path(self.path(relative))
        with _locked(Path(self.root) / ".locks" / hashlib.sha256(relative.encode()).hexdigest()[:16]):
            current = self.read_versioned(relative)
            if (current[1] if current else None) != token:
                raise ConflictError(f"{self.url(relative)} was replaced by another writer")
            _write_local(path, data)

    def _swap_s3(self, relative: str, data: bytes, token: str | None) -> None:
        bucket, key, _ = self.fs.split_path(self.path(relative))
        condition = {"IfNoneMatch": "*"} if token is None else {"IfMatch": token}
        try:
            self.fs.call_s3("put_object", Bucket=bucket, Key=key, Body=data, **condition)
        except Exception as error:
            if _is_conflict(error):
                raise ConflictError(f"{self.url(relative)} was replaced by another writer") from error
            raise


def _is_conflict(error: BaseException | None) -> bool:
    while error is not None:
        response = getattr(error, "response", None) or {}
        code = str(response.get("Error", {}).get("Code", ""))
        status = str(response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
        if code in _CONFLICT_CODES or status in _CONFLICT_CODES:
            return True
        if isinstance(error, OSError) and "precondition" in str(error).lower():
            return True
        error = error.__cause__
    return False


def _write_local(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
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
