"""Manifest of a selection: enough to prove that a file matches it, and to make it again."""

import hashlib
import json
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import orjson

from vsel_platform import __version__
from vsel_platform.errors import VerificationError

KIND = "vsel.selection/1"
LIBRARIES = ("numpy", "faiss-cpu", "pyarrow", "duckdb", "torch", "transformers", "peft", "lancedb")


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One selected row. `row_hash` is the sha256 of the source row as compact JSON in its own key order."""

    rank: int
    sample_id: str
    position: int
    reason: str
    row_hash: str


def row_hash(row: bytes | dict[str, Any]) -> str:
    """sha256 (hex) of a source row as compact JSON; white space of the file does not count, key order does.

    A row with an integer of more than 64 bits is hashed as the text that the reader of the source made of it.
    """
    try:
        text = orjson.dumps(orjson.loads(row) if isinstance(row, bytes) else row)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        text = row if isinstance(row, bytes) else json.dumps(row, separators=(",", ":")).encode()
    return hashlib.sha256(text).hexdigest()


def selection_hash(sample_ids: Iterable[str]) -> str:
    """sha256 (hex) of the selected identities in rank order: two selections are the same if it is equal."""
    digest = hashlib.sha256()
    for sample_id in sample_ids:
        digest.update(sample_id.encode() + b"\n")
    return digest.hexdigest()


def library_versions() -> dict[str, str]:
    """Versions of Python, this package, and the libraries that results depend on (those installed)."""
    versions = {"python": platform.python_version(), "vsel-platform": __version__}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def build_manifest(rows: Sequence[ManifestRow], *, settings: dict[str, Any], lineage: dict[str, Any]) -> dict[str, Any]:
    """The manifest as plain values.

    `settings`: recipe name and its settings, dataset, format; `lineage`: input fingerprint, inputs
    (pointer references), signal fingerprints.
    """
    return {
        "kind": KIND,
        **settings,
        **lineage,
        "versions": library_versions(),
        "n_rows": len(rows),
        "selection_hash": selection_hash(row.sample_id for row in rows),
        "rows": [
            {
                "rank": row.rank,
                "sample_id": row.sample_id,
                "position": row.position,
                "reason": row.reason,
                "row_hash": row.row_hash,
            }
            for row in rows
        ],
    }


def read_manifest(path: str | Path) -> dict[str, Any]:
    """Read a manifest file. Raises VerificationError if it is not one, or was edited (its hash does not fit)."""
    file = Path(path)
    if not file.is_file():
        raise VerificationError(f"no manifest at {file}")
    try:
        manifest = orjson.loads(file.read_bytes())
        rows = manifest["rows"]
        found = selection_hash(row["sample_id"] for row in rows)
        recorded = manifest["selection_hash"]
    except (ValueError, KeyError, TypeError) as error:
        raise VerificationError(f"{file} is not a selection manifest: {error!r}") from error
    if manifest.get("kind") != KIND:
        raise VerificationError(f"{file}: kind is {manifest.get('kind')!r}, expected {KIND!r}")
    if found != recorded:
        raise VerificationError(f"{file} was changed: its rows do not give the recorded selection hash {recorded}")
    return dict(manifest)


@dataclass(frozen=True, slots=True)
class Verification:
    """How a file compares with a manifest, by row hash."""

    expected: int
    found: int
    missing: list[int]
    unexpected: list[int]

    @property
    def matches(self) -> bool:
        """Whether the file holds exactly the manifest's rows."""
        return not self.missing and not self.unexpected and self.expected == self.found


def verify_rows(manifest: dict[str, Any], rows: Iterable[bytes | dict[str, Any]]) -> Verification:
    """Compare the rows of a file with a manifest: as a multiset, so that the order of the file does not count.

    `missing` lists ranks of the manifest's rows that the file lacks, `unexpected` 0-based positions of rows
    of the file that are not in the manifest (or occur too often).
    """
    open_rows: dict[str, list[int]] = {}
    for row in manifest["rows"]:
        open_rows.setdefault(row["row_hash"], []).append(row["rank"])
    unexpected = []
    found = 0
    for position, row in enumerate(rows):
        found += 1
        ranks = open_rows.get(row_hash(row))
        if ranks:
            ranks.pop()
        else:
            unexpected.append(position)
    missing = sorted(rank for ranks in open_rows.values() for rank in ranks)
    return Verification(len(manifest["rows"]), found, missing, unexpected)
