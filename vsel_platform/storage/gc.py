"""Garbage collection: what no kept state and no selection manifest names is removed."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from vsel_platform.errors import StorageError
from vsel_platform.storage.files import FileEntry
from vsel_platform.storage.pointers import Pointer, history_path, parse_reference, pointer_from_bytes
from vsel_platform.storage.store import Store, artifact_name
from vsel_platform.storage.vectors import VectorStore

MANIFEST_TABLE = "selection"
MANIFEST_FILE = "manifest.json"
YOUNG_S = 3600.0  # a concurrent publish may not have named its newest files yet
ABANDONED_S = 86_400.0


@dataclass(frozen=True, slots=True)
class GcReport:
    """What was removed, or would be (`dry_run`): files of the store, and versions of Lance tables.

    `vector_bytes` is 0 in a dry run: only Lance knows what its versions share, when it removes them.
    """

    dry_run: bool
    files: list[str]
    n_bytes: int
    kept_files: int
    kept_states: int
    vector_versions: int
    vector_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def collect(store: Store, *, keep_days: float, dry_run: bool) -> GcReport:
    """Remove files and versions that nothing needs any more.

    Kept are: every current state; every state that was current within the last `keep_days` (so time travel
    works that far back); every state that the manifest of a kept selection names; whatever was written within
    the last hour. Parts of jobs go when nothing was added to them for a day.
    Raises StorageError if a selection's manifest cannot be read: then nothing is removed.
    """
    if keep_days < 0:
        raise StorageError(f"keep_days must not be negative, got {keep_days}")
    now = time.time()
    listing = [*store.files.entries("tables"), *store.files.entries("artifacts")]
    limit = datetime.fromtimestamp(now - max(keep_days * 86_400.0, YOUNG_S), UTC)
    kept = _kept_pointers(store, listing, limit)
    named = {path for pointer in kept for path in _paths_of(pointer)}
    old = [e for e in listing if e.modified < now - YOUNG_S and e.path not in named and not _is_pointer(e.path)]
    doomed = [*_history_first(old), *_abandoned(store.files.entries("work"), now)]
    if not dry_run:
        # A slow publish may have named one of its older files meanwhile.
        current = {path for pointer in store.pointers() for path in _paths_of(pointer)}
        doomed = [entry for entry in doomed if entry.path not in current]
        for entry in doomed:
            store.files.delete(entry.path)
    versions, size = _collect_vectors(VectorStore(store.files.root_url), kept, now, dry_run=dry_run)
    return GcReport(
        dry_run=dry_run,
        files=[entry.path for entry in doomed],
        n_bytes=sum(entry.bytes for entry in doomed),
        kept_files=len(listing) - len(old),
        kept_states=len(kept),
        vector_versions=versions,
        vector_bytes=size,
    )


def _kept_pointers(store: Store, listing: list[FileEntry], limit: datetime) -> list[Pointer]:
    """Current states, those that were current after `limit`, and those that their manifests name."""
    everything = store.files.read_many(
        entry.path for entry in listing if entry.path.startswith("tables/") and entry.path.endswith(".json")
    )
    history = {path: data for path, data in everything.items() if "/history/" in path}
    kept: dict[str, Pointer] = {}
    for path, data in everything.items():
        if _is_pointer(path):
            for pointer in _recent(pointer_from_bytes(data), history, limit):
                kept[pointer.reference] = pointer
    for pointer in list(kept.values()):
        for reference in _manifest_inputs(store, pointer):
            pinned = history.get(history_path(*parse_reference(reference)))
            if pinned is not None:
                kept.setdefault(reference, pointer_from_bytes(pinned))
    return list(kept.values())


def _recent(pointer: Pointer, history: dict[str, bytes], limit: datetime) -> Iterator[Pointer]:
    """A current state and its predecessors, as far back as one was still current after `limit`."""
    yield pointer
    while pointer.previous is not None and datetime.fromisoformat(pointer.created_at) > limit:
        data = history.get(history_path(pointer.key, pointer.previous))
        if data is None:
            return
        pointer = pointer_from_bytes(data)
        yield pointer


def _manifest_inputs(store: Store, pointer: Pointer) -> list[str]:
    """References that a selection's manifest names; empty for anything else."""
    if pointer.table != MANIFEST_TABLE:
        return []
    for file in pointer.files:
        if artifact_name(pointer, file) == MANIFEST_FILE:
            try:
                return [str(reference) for reference in orjson.loads(store.files.read(file.path))["inputs"]]
            except (orjson.JSONDecodeError, KeyError, TypeError) as error:
                raise StorageError(
                    f"{store.files.url(file.path)} names no inputs; nothing was removed, "
                    f"because what selection {pointer.key} needs is unknown"
                ) from error
    return []


def _paths_of(pointer: Pointer) -> list[str]:
    return [*(file.path for file in pointer.files), history_path(pointer.key, pointer.version)]


def _is_pointer(path: str) -> bool:
    return path.endswith("/pointer.json") and path.startswith("tables/")


def _history_first(entries: list[FileEntry]) -> list[FileEntry]:
    """Versions before their files: if we are killed, no version is left that names a removed file."""
    return sorted(entries, key=lambda entry: "/history/" not in entry.path)


def _abandoned(entries: Iterable[FileEntry], now: float) -> list[FileEntry]:
    """Parts of jobs (`work/<job>/...`) that have not grown for a day."""
    jobs: dict[str, list[FileEntry]] = {}
    for entry in entries:
        jobs.setdefault(entry.path.split("/")[1], []).append(entry)
    idle = [parts for parts in jobs.values() if max(part.modified for part in parts) < now - ABANDONED_S]
    return [part for parts in idle for part in parts]


def _collect_vectors(vectors: VectorStore, kept: list[Pointer], now: float, *, dry_run: bool) -> tuple[int, int]:
    """(versions, bytes) of the Lance tables that no kept state names; bytes are 0 in a dry run."""
    versions = size = 0
    for name in vectors.tables():
        named = {
            int(p.metadata["lance_version"]) for p in kept if p.metadata.get("lance_table") == name
        }  # fmt: skip
        dataset = vectors.dataset(name)
        old = _old_versions(dataset, named, now)
        versions += len(old)
        if old and not dry_run:
            for tag, state in dataset.tags.list().items():
                if state["version"] in old:
                    dataset.tags.delete(tag)
            removed = dataset.cleanup_old_versions(versions=sorted(old), error_if_tagged_old_versions=False)
            size += removed.bytes_removed
    return versions, size


def _old_versions(dataset: Any, named: set[int], now: float) -> set[int]:
    found = {v["version"]: v["timestamp"].timestamp() for v in dataset.versions()}
    newest = max(found)
    return {v for v, made in found.items() if v not in named and v != newest and made < now - YOUNG_S}
