"""Pointers: one small JSON file per table partition says which immutable files are current."""

import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from vsel_platform.errors import ConflictError, StorageError
from vsel_platform.storage.files import FileStore
from vsel_platform.tables import SCHEMA_VERSION

SWAP_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class DataFile:
    """One immutable file: path relative to the store, rows (0 for artifacts), bytes."""

    path: str
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Pointer:
    """What is current for a partition, and where it came from (lineage)."""

    table: str
    partition: dict[str, str]
    version: str
    created_at: str
    files: list[DataFile]
    rows: int
    data_version: str
    previous: str | None = None
    fingerprint: str = ""
    input_fingerprint: str = ""
    code_version: str = ""
    run_id: str = ""
    quality: str = "ok"
    inputs: list[str] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @property
    def key(self) -> str:
        """`table/partition=value/...`: the name of the partition everywhere."""
        return partition_key(self.table, self.partition)

    @property
    def reference(self) -> str:
        """`key@version`: names this exact state, as used in `inputs`."""
        return f"{self.key}@{self.version}"

    def to_bytes(self) -> bytes:
        """JSON."""
        return orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)


def pointer_from_bytes(data: bytes) -> Pointer:
    """Parse a pointer; StorageError if it is not one."""
    try:
        value = orjson.loads(data)
        return Pointer(**{**value, "files": [DataFile(**file) for file in value["files"]]})
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(f"damaged pointer: {error}") from error


def partition_key(table: str, partition: dict[str, str]) -> str:
    """`table/a=1/b=2` in the order of `partition`."""
    for name, value in partition.items():
        if not value or "/" in value or value in (".", "..") or "\x00" in value:
            raise StorageError(f"table {table}: partition {name}={value!r} is not a file name")
    return "/".join([table, *(f"{name}={value}" for name, value in partition.items())])


def new_version() -> str:
    """Sortable version name: UTC time in microseconds and 32 random bits."""
    now = datetime.now(UTC)
    return f"{now:%Y%m%dT%H%M%S%f}-{secrets.token_hex(4)}"


def read_pointer(files: FileStore, key: str) -> Pointer | None:
    """Current pointer of a partition."""
    found = files.read_versioned(f"tables/{key}/pointer.json")
    return pointer_from_bytes(found[0]) if found else None


def swap_pointer(files: FileStore, pointer: Pointer, *, attempts: int = SWAP_ATTEMPTS) -> Pointer:
    """Make `pointer` current; `previous` is set to the version it replaces, so that history is a chain.

    With several writers each swap is atomic and the last one wins. Raises ConflictError after `attempts`.
    """
    path = f"tables/{pointer.key}/pointer.json"
    for attempt in range(attempts):
        found = files.read_versioned(path)
        previous = pointer_from_bytes(found[0]).version if found else None
        current = Pointer(**{**_fields(pointer), "previous": previous})
        # History first: a version that a pointer names can then always be read.
        files.write(f"tables/{pointer.key}/history/{current.version}.json", current.to_bytes())
        try:
            files.swap(path, current.to_bytes(), found[1] if found else None)
            return current
        except ConflictError:
            time.sleep(0.01 * (attempt + 1) * (1 + secrets.randbelow(100) / 100))
    raise ConflictError(f"{files.url(path)}: other writers came first {attempts} times; try again")


def _fields(pointer: Pointer) -> dict[str, Any]:
    return {name: getattr(pointer, name) for name in Pointer.__slots__}


def read_version(files: FileStore, key: str, version: str) -> Pointer:
    """A pointer as it was. Raises StorageError if garbage collection removed it."""
    return pointer_from_bytes(files.read(f"tables/{key}/history/{version}.json"))


def history(files: FileStore, key: str) -> Iterator[Pointer]:
    """The chain of published pointers, newest first; stops where older ones were collected."""
    pointer = read_pointer(files, key)
    while pointer is not None:
        yield pointer
        if pointer.previous is None or not files.exists(f"tables/{key}/history/{pointer.previous}.json"):
            return
        pointer = read_version(files, key, pointer.previous)


def as_of(files: FileStore, key: str, moment: str) -> Pointer | None:
    """The pointer that was current at `moment` (ISO 8601, UTC), None if the partition did not exist yet."""
    limit = datetime.fromisoformat(moment)
    if limit.tzinfo is None:
        limit = limit.replace(tzinfo=UTC)
    for pointer in history(files, key):
        if datetime.fromisoformat(pointer.created_at) <= limit:
            return pointer
    return None
