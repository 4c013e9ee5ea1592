"""Proofs: a file matches a manifest; the store gives the same selection again."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vsel_platform.errors import VerificationError
from vsel_platform.pipeline import selection
from vsel_platform.pipeline.context import Context
from vsel_platform.selection.manifest import Verification, read_manifest, selection_hash, verify_rows


@dataclass(frozen=True, slots=True)
class Replay:
    """A selection that was made again and is the same."""

    rows: int
    selection_hash: str


def verify_file(manifest: Path, data: Path) -> Verification:
    """Compare a training file with a manifest by row hashes; the file is read as a stream."""
    from vsel_platform.samples.reading import read_rows
    from vsel_platform.samples.sample import SourceRow

    def rows() -> Iterator[bytes]:
        for batch in read_rows([str(data)]):
            for row in batch:
                # A row that cannot be read matches nothing, which is what the comparison has to say.
                yield row.compact if isinstance(row, SourceRow) else b"null"

    if not data.is_file():
        raise VerificationError(f"no training file at {data}")
    return verify_rows(read_manifest(manifest), rows())


def replay_manifest(ctx: Context, manifest_path: Path) -> Replay:
    """Select again from the states of the store that the manifest names.

    Raises VerificationError if the result differs, StorageError if garbage collection removed an input.
    """
    manifest = read_manifest(manifest_path)
    rows = selection.select_again(ctx, manifest)
    found = selection_hash(row.sample_id for row in rows)
    if found != manifest["selection_hash"]:
        recorded = {row["sample_id"] for row in manifest["rows"]}
        changed = len(recorded ^ {row.sample_id for row in rows})
        raise VerificationError(
            f"{manifest_path}: the selection made again differs in {changed} rows; the manifest was made with "
            f"{manifest['versions']}"
        )
    return Replay(len(rows), found)
