"""Pointers: one small JSON file per table partition says which immutable files are current."""

import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from vsel_platform.errors import ConflictError, StorageError
from vsel_platform.storage.files import FileStore
from vsel_platform.tables import SCHEMA_VERSION

SWAP_ATTEMPTS = 20
_VALUE = re.compile(r"[^/\\\x00-\x1f\x7f]+")
_REFERENCE = re.compile(r"(?P<key>\w+(?:/\w+=[^/]+)*)@(?P<version>\d{8}T\d{12}-[0-9a-f]{8})")


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
    files: list[DataFile]
    rows: int
    data_version: str
    version: str = ""
    created_at: str = ""
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
    """`table/a=1/b=2`, sorted by name: the same whatever the order of `partition` (in JSON it is sorted)."""
    for name, value in partition.items():
        if value in (".", "..") or not _VALUE.fullmatch(value):
            raise StorageError(f"table {table}: partition {name}={value!r} is not a file name")
    return "/".join([table, *(f"{name}={value}" for name, value in sorted(partition.items()))])


def parse_reference(reference: str) -> tuple[str, str]:
    """(key, version) of a `key@version` reference. Raises StorageError if it is not one."""
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise StorageError(f"{reference!r} is not a pointer reference (table/partition=value@version)")
    return match["key"], match["version"]


def new_version(moment: datetime | None = None) -> str:
    """Sortable version name: UTC time (now) in microseconds and 32 random bits."""
    return f"{moment or datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(4)}"


def version_time(version: str) -> datetime:
    """Moment at which a version was made, from its name (UTC, microseconds)."""
    return datetime.strptime(version.partition("-")[0], "%Y%m%dT%H%M%S%f").replace(tzinfo=UTC)


def read_pointer(files: FileStore, key: str) -> Pointer | None:
    """Current pointer of a partition."""
    found = files.read_versioned(f"tables/{key}/pointer.json")
    return pointer_from_bytes(found[0]) if found else None


def swap_pointer(files: FileStore, pointer: Pointer, *, attempts: int = SWAP_ATTEMPTS) -> Pointer:
    """Make `pointer` current and return it with its version, time and predecessor, so that history is a chain.

    With several writers each swap is atomic and the last one wins. Raises ConflictError after `attempts`.
    """
    path = f"tables/{pointer.key}/pointer.json"
    tried: set[str] = set()
    for attempt in range(attempts):
        found = files.read_versioned(path)
        current = pointer_from_bytes(found[0]) if found else None
        if current is not None and current.version in tried:
            return current  # the store had taken our swap, although its answer said otherwise
        stamped = _stamp(pointer, current)
        tried.add(stamped.version)
        # History first: a version that a pointer names can then always be read.
        files.write(history_path(pointer.key, stamped.version), stamped.to_bytes())
        try:
            files.swap(path, stamped.to_bytes(), found[1] if found else None)
            return stamped
        except ConflictError:
            time.sleep(min(1.0, 0.01 * 1.5**attempt) * (1 + secrets.randbelow(100) / 100))
    raise ConflictError(f"{files.url(path)}: other writers came first {attempts} times; try again")


def _stamp(pointer: Pointer, current: Pointer | None) -> Pointer:
    """Version and time never run backwards along a chain, whatever the clocks of its writers say."""
    moment = datetime.now(UTC)
    if current is not None:
        moment = max(moment, datetime.fromisoformat(current.created_at) + timedelta(microseconds=1))
    previous = current.version if current is not None else None
    return replace(pointer, version=new_version(moment), created_at=moment.isoformat(), previous=previous)


def history_path(key: str, version: str) -> str:
    """Where a version of a pointer is kept."""
    return f"tables/{key}/history/{version}.json"


def read_version(files: FileStore, key: str, version: str) -> Pointer:
    """A pointer as it was. Raises StorageError if garbage collection removed it."""
    return pointer_from_bytes(files.read(history_path(key, version)))


def history(files: FileStore, key: str) -> Iterator[Pointer]:
    """The chain of published pointers, newest first; stops where older ones were collected."""
    pointer = read_pointer(files, key)
    while pointer is not None:
        yield pointer
        if pointer.previous is None or not files.exists(history_path(key, pointer.previous)):
            return
        pointer = read_version(files, key, pointer.previous)


def parse_moment(moment: str) -> datetime:
    """An ISO 8601 time; without an offset it is UTC. Raises StorageError with an example."""
    try:
        value = datetime.fromisoformat(moment)
    except ValueError as error:
        raise StorageError(
            f"{moment!r} is not a time; write it like 2026-01-31 or 2026-01-31T12:30:00+00:00"
        ) from error
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def as_of(files: FileStore, key: str, moment: str) -> Pointer | None:
    """The pointer that was current at `moment` (ISO 8601, UTC), None if the partition did not exist yet.

    Raises StorageError if garbage collection removed what was current then.
    """
    limit = parse_moment(moment)
    oldest: Pointer | None = None
    for pointer in history(files, key):
        if datetime.fromisoformat(pointer.created_at) <= limit:
            return pointer
        oldest = pointer
    if oldest is not None and oldest.previous is not None:
        raise StorageError(
            f"{key}: the state at {moment} was removed by garbage collection; "
            f"the oldest one kept is of {oldest.created_at}"
        )
    return None
