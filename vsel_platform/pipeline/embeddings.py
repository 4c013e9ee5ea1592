"""Stage `image_embeddings`: every distinct image of a shard, once per encoder."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from vsel_platform.identity import hash_ids
from vsel_platform.pipeline.context import Context, Inputs, StageResult, inputs_of
from vsel_platform.pipeline.lookup import open_image
from vsel_platform.pipeline.models import EMBEDDING_CODE, confirm_weights, embedding_fingerprint
from vsel_platform.pipeline.parts import PartLog
from vsel_platform.pipeline.timing import record_rate
from vsel_platform.signals.failures import failures_table

if TYPE_CHECKING:
    from PIL.Image import Image

SIGNAL = "image_embeddings"
PART_ROWS = 512


def partition(ctx: Context, shard: str) -> dict[str, str]:
    """Partition of a shard's embeddings under the project's encoder."""
    return {"fingerprint": embedding_fingerprint(ctx.project.image_encoder), "shard": shard}


def inputs(ctx: Context, shard: str) -> Inputs:
    """What the stage reads: the shard's images."""
    name = partition(ctx, shard)["fingerprint"]
    return inputs_of([ctx.store.require("images", {"shard": shard})], encoder=name)


def is_current(ctx: Context, shard: str) -> bool:
    """Whether the stored embeddings are those of the present images and encoder."""
    pointer = ctx.store.pointer(SIGNAL, partition(ctx, shard))
    return pointer is not None and pointer.input_fingerprint == inputs(ctx, shard).fingerprint


def run(ctx: Context, shard: str) -> StageResult:
    """Embed the images of a shard that have no embedding yet, and publish."""
    start = time.perf_counter()
    key = partition(ctx, shard)
    wanted = inputs(ctx, shard)
    table = ctx.store.read_partition("images", {"shard": shard}, ["image_id", "path"])
    paths = dict(zip(table["image_id"].to_pylist(), table["path"].to_pylist(), strict=True))
    known = ctx.vectors.existing_ids(SIGNAL, key["fingerprint"], sorted(paths))
    log = PartLog(ctx.store.files, f"{SIGNAL}-{key['fingerprint']}-{shard}")
    computed, failures = _compute(ctx, key, {i: p for i, p in paths.items() if i not in known}, log)
    if known:
        ids, vectors = ctx.vectors.read(SIGNAL, key["fingerprint"], sorted(known))
        computed.update(zip(ids, vectors, strict=True))
    version = _store(ctx, key, computed)
    failed = failures_table(failures)
    ctx.store.publish(
        "signal_failures",
        {"signal": SIGNAL, **key},
        failed,
        run_id=ctx.run_id,
        fingerprint=key["fingerprint"],
    )
    pointer = ctx.store.publish_pointer(
        SIGNAL,
        key,
        rows=len(computed),
        data_version=hash_ids([f"{i}{v.tobytes().hex()}" for i, v in computed.items()]),
        fingerprint=key["fingerprint"],
        input_fingerprint=wanted.fingerprint,
        inputs=wanted.references,
        code_version=EMBEDDING_CODE,
        run_id=ctx.run_id,
        metadata=version,
    )
    log.clear()
    record_rate(ctx, SIGNAL, key["fingerprint"], len(computed) - len(known), time.perf_counter() - start)
    return StageResult(
        SIGNAL,
        {"shard": shard},
        pointer.data_version,
        pointer.rows,
        computed=len(computed) - len(known),
        reused=len(known),
        failed=failed.num_rows,
        seconds=time.perf_counter() - start,
        references=[pointer.reference],
        metadata=version,
    )


def _store(ctx: Context, key: dict[str, str], vectors: dict[str, np.ndarray]) -> dict[str, str | int]:
    ids = sorted(vectors)
    if not ids:
        return {"dimension": 0}
    matrix = np.stack([vectors[i] for i in ids]).astype(np.float32)
    lance = ctx.vectors.replace_shard(SIGNAL, key["fingerprint"], key["shard"], ids, matrix)
    return {"lance_table": lance.table, "lance_version": lance.version, "dimension": int(matrix.shape[1])}


def _compute(
    ctx: Context, key: dict[str, str], paths: dict[str, str], log: PartLog
) -> tuple[dict[str, np.ndarray], list[tuple[str, str, str]]]:
    """Vectors and failures of the given images; finished batches of an earlier, killed run are taken over."""
    vectors: dict[str, np.ndarray] = {}
    done = log.load()
    if done is not None:
        for image_id, vector in zip(done["id"].to_pylist(), done["vector"].to_pylist(), strict=True):
            if image_id in paths:
                vectors[image_id] = np.asarray(vector, dtype=np.float32)
    todo = sorted(i for i in paths if i not in vectors)
    failures: list[tuple[str, str, str]] = []
    if todo:
        _encode(ctx, key, todo, paths, log, vectors, failures)
    return vectors, failures


def _encode(
    ctx: Context,
    key: dict[str, str],
    todo: list[str],
    paths: dict[str, str],
    log: PartLog,
    vectors: dict[str, np.ndarray],
    failures: list[tuple[str, str, str]],
) -> None:
    from vsel_platform.models.encoders import load_image_encoder
    from vsel_platform.signals.image_embeddings import embed_images

    settings = ctx.project.image_encoder
    encoder = load_image_encoder(settings, ctx.project.compute.device)
    confirm_weights(ctx, key["fingerprint"], encoder.fingerprint)
    limit = max(d.images.max_pixels for d in ctx.project.datasets.values())
    pending: list[tuple[str, np.ndarray]] = []

    def items() -> Iterator[tuple[str, Callable[[], "Image"]]]:
        for image_id in todo:
            yield image_id, partial(open_image, paths[image_id], max_pixels=limit)

    def flush() -> None:
        if pending:
            ids, rows = zip(*pending, strict=True)
            log.save(pa.table({"id": list(ids), "vector": [row.tolist() for row in rows]}))
            pending.clear()

    for batch in embed_images(encoder, items(), batch_size=settings.batch_size, decode_workers=settings.decode_workers):
        for image_id, vector in zip(batch.ids, batch.vectors, strict=True):
            vectors[image_id] = vector
            pending.append((image_id, vector))
        failures.extend((f.content_id, f.reason, f.detail) for f in batch.failures)
        if len(pending) >= PART_ROWS:
            flush()
        ctx.progress("images embedded", len(vectors) + len(failures), len(paths))
    flush()
