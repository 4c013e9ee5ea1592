"""Stage `representation_moments`: mean and scatter of a dataset's attended vision, updated by what came and went."""

import io
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vsel_platform.errors import SelectionError
from vsel_platform.pipeline import representations
from vsel_platform.pipeline.context import Context, Inputs, StageResult, inputs_of
from vsel_platform.pipeline.lookup import dataset_shards, distinct_contents
from vsel_platform.pipeline.timing import record_rate
from vsel_platform.selection.leverage import Moments, merge, moments_of, without
from vsel_platform.storage.pointers import Pointer

SIGNAL = "representation_moments"
MOMENTS_CODE = "representation_moments-1"
MOMENTS_FILE = "moments.npz"
IDS_FILE = "ids.parquet"
# When more rows come and go than this share of those that stay, counting anew costs less and rounds less.
MAX_CHANGE = 0.5


def partition(ctx: Context, dataset: str) -> dict[str, str]:
    """Partition of a dataset's moments under the project's model."""
    return {"dataset": dataset, "fingerprint": representations.STAGE.fingerprint(ctx)}


def source_pointers(ctx: Context, dataset: str) -> list[Pointer]:
    """The manifest, and the representations of every shard."""
    shards = [
        ctx.store.require(representations.SIGNAL, representations.STAGE.partition(ctx, shard))
        for shard in dataset_shards(ctx, dataset)
    ]
    return [ctx.store.require("manifest", {"dataset": dataset}), *shards]


def inputs(ctx: Context, dataset: str) -> Inputs:
    """What the stage reads. Raises NotMaterializedError while a shard's representations are missing."""
    return inputs_of(source_pointers(ctx, dataset), code=MOMENTS_CODE)


def is_current(ctx: Context, dataset: str) -> bool:
    """Whether the stored moments are of the dataset's present rows."""
    pointer = ctx.store.pointer(SIGNAL, partition(ctx, dataset))
    return pointer is not None and pointer.input_fingerprint == inputs(ctx, dataset).fingerprint


def run(ctx: Context, dataset: str) -> StageResult:
    """Update the stored moments by the rows that came and went, or count all rows, and publish."""
    start = time.perf_counter()
    wanted = inputs(ctx, dataset)
    key = partition(ctx, dataset)
    rows = {row.sample_id for row in distinct_contents(ctx, dataset)[1]}
    present = sorted(ctx.vectors.existing_ids(representations.SIGNAL, key["fingerprint"], rows))
    if len(present) < 2:
        raise SelectionError(
            f"dataset {dataset}: {len(present)} rows have a representation; scores need at least 2 rows with images"
        )
    stored = ctx.store.pointer(SIGNAL, key)
    usable = stored is not None and stored.code_version == MOMENTS_CODE
    found, n_read = _updated(ctx, stored, key["fingerprint"], present) if stored and usable else (None, 0)
    if found is None:
        found, n_read = moments_of(_vectors(ctx, key["fingerprint"], set(present))), len(present)
    with TemporaryDirectory() as directory:
        (Path(directory) / MOMENTS_FILE).write_bytes(found.to_bytes())
        pq.write_table(pa.table({"sample_id": present}), Path(directory) / IDS_FILE)
        pointer = ctx.store.publish_artifact(
            SIGNAL,
            key,
            Path(directory),
            fingerprint=key["fingerprint"],
            input_fingerprint=wanted.fingerprint,
            inputs=wanted.references,
            code_version=MOMENTS_CODE,
            run_id=ctx.run_id,
            metadata={"rows": len(present)},
        )
    record_rate(ctx, SIGNAL, key["fingerprint"], n_read, time.perf_counter() - start)
    return StageResult(
        SIGNAL,
        {"dataset": dataset},
        pointer.data_version,
        len(present),
        computed=n_read,
        reused=max(0, len(present) - n_read),
        seconds=time.perf_counter() - start,
        references=[pointer.reference],
        metadata={"dimension": len(found.mean)},
    )


def read_moments(ctx: Context, pointer: Pointer) -> Moments:
    """The moments of a published state."""
    return Moments.from_bytes(_file(ctx, pointer, MOMENTS_FILE))


def _updated(
    ctx: Context, stored: Pointer, fingerprint: str, present: list[str]
) -> tuple[Moments, int] | tuple[None, int]:
    """The stored moments with the rows that came added and those that went taken out, and how many were read.

    (None, 0) if that is not worth it, or the vectors of rows that went are gone.
    """
    before = set(pq.read_table(io.BytesIO(_file(ctx, stored, IDS_FILE)))["sample_id"].to_pylist())
    added, removed = set(present) - before, before - set(present)
    kept = len(before) - len(removed)
    if len(added) + len(removed) > MAX_CHANGE * kept:
        return None, 0
    if ctx.vectors.existing_ids(representations.SIGNAL, fingerprint, removed) != removed:
        return None, 0
    found = read_moments(ctx, stored)
    if added:
        found = merge(found, moments_of([ctx.vectors.read(representations.SIGNAL, fingerprint, sorted(added))[1]]))
    if removed:
        found = without(found, moments_of([ctx.vectors.read(representations.SIGNAL, fingerprint, sorted(removed))[1]]))
    return found, len(added) + len(removed)


def _vectors(ctx: Context, fingerprint: str, wanted: set[str]) -> Iterator[NDArray[np.float32]]:
    for ids, vectors in ctx.vectors.blocks(representations.SIGNAL, fingerprint):
        mask = np.fromiter((i in wanted for i in ids), np.bool_, len(ids))
        if mask.any():
            yield vectors[mask]


def _file(ctx: Context, pointer: Pointer, name: str) -> bytes:
    path = next(file.path for file in pointer.files if file.path.rsplit("/", 1)[-1] == name)
    return ctx.store.files.read(path)
