"""Rows of a manifest written back in the source's own format."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from vsel_platform.errors import DataError
from vsel_platform.samples.containers import Container
from vsel_platform.samples.formats import reader
from vsel_platform.samples.writing import Blob, write_rows

LOOKUP_ROWS = 1_000
SampleLookup = Callable[[Sequence[str]], Mapping[str, str]]


def export_rows(manifest: Any, samples: SampleLookup, positions: Sequence[int] | None = None) -> Iterator[bytes]:
    """JSON text of source rows, in the order of `positions` (None: all rows, in source order).

    `manifest` is the manifest table (columns position, sample_id, row_json); `samples` gives the `row_json` of
    sample ids. Raises DataError for a position that the manifest lacks or a sample that the store lacks.
    """
    index = {position: row for row, position in enumerate(manifest["position"].to_pylist())}
    wanted = sorted(index) if positions is None else list(positions)
    missing = [position for position in wanted if position not in index]
    if missing:
        raise DataError(f"{len(missing)} position(s) are not in the manifest, the first is {missing[0]}")
    for start in range(0, len(wanted), LOOKUP_ROWS):
        rows = manifest.take([index[position] for position in wanted[start : start + LOOKUP_ROWS]])
        yield from _rows(rows, samples)


def _rows(rows: Any, samples: SampleLookup) -> Iterator[bytes]:
    ids, own = rows["sample_id"].to_pylist(), rows["row_json"].to_pylist()
    kept = samples([i for i, row in zip(ids, own, strict=True) if row is None])
    for sample_id, row in zip(ids, own, strict=True):
        text = kept.get(sample_id) if row is None else row
        if text is None:
            raise DataError(f"sample {sample_id} is in the manifest but not in the store; ingest again")
        yield text.encode()


def export(
    format: str, rows: Iterator[bytes], path: str, *, container: Container | None = None, blob: Blob | None = None
) -> int:
    """Write rows as a training file; the number of rows.

    Without a container (see `containers.container_of`) the usual one of the format is taken.
    """
    return write_rows(rows, path, container or reader(format).container, blob)
