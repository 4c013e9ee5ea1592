"""Vectors and tasks for embedding maps, sampled by image identity."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vsel_platform.pipeline import embeddings, text_embeddings
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.embeddings import SIGNAL
from vsel_platform.pipeline.embeddings import partition as embedding_partition
from vsel_platform.pipeline.lookup import turns_of
from vsel_platform.pipeline.models import embedding_fingerprint
from vsel_platform.pipeline.vector_stage import VectorStage
from vsel_platform.reports.data import parts
from vsel_platform.signals.question_texts import question_texts, text_id
from vsel_platform.storage.pointers import Pointer

MAP_IMAGES = 2_000
NO_TASK = "not in a dataset"


@dataclass(frozen=True, slots=True)
class MapData:
    """A sample of contents: vectors [n, d] float32, tasks [n], whether selected [n]; `sampled`: there are more."""

    vectors: NDArray[np.float32]
    tasks: list[str]
    selected: list[bool]
    sampled: bool


def shard_map(ctx: Context, shard: str, limit: int = MAP_IMAGES) -> MapData | None:
    """Images of a shard with the task of their rows; None if no image of the shard is embedded."""
    images = ctx.store.pointer("images", {"shard": shard})
    embedded = ctx.store.pointer(SIGNAL, embedding_partition(ctx, shard))
    if images is None or embedded is None or embedded.rows == 0:
        return None
    ids, sampled = _sample_ids((part["image_id"] for part in parts(ctx, images, ["image_id"])), limit)
    return _with_vectors(ctx, embeddings.STAGE, ids, _tasks_in_shard(ctx, shard, ids), {}, sampled)


def row_map(ctx: Context, stage: VectorStage, shard: str, limit: int = MAP_IMAGES) -> MapData | None:
    """Rows of a shard by a signal that gives rows vectors; None if no row of the shard has one."""
    samples = ctx.store.pointer("samples", {"shard": shard})
    found = ctx.store.pointer(stage.signal, stage.partition(ctx, shard))
    if samples is None or found is None or found.rows == 0:
        return None
    wanted = pa.array(sorted(stage.wanted(ctx, shard)), pa.string())
    ids, sampled = _sample_ids([pa.chunked_array([wanted])], limit)
    return _with_vectors(ctx, stage, ids, _task_of(ctx, ids), {}, sampled)


def question_map(ctx: Context, shard: str, limit: int = MAP_IMAGES) -> MapData | None:
    """Distinct questions of a shard, each with the task of its row with the smallest id; None if none is embedded."""
    samples = ctx.store.pointer("samples", {"shard": shard})
    found = ctx.store.pointer(text_embeddings.SIGNAL, text_embeddings.STAGE.partition(ctx, shard))
    if samples is None or found is None or found.rows == 0:
        return None
    row_of: dict[str, str] = {}
    for part in parts(ctx, samples, ["sample_id", "conversation"]):
        columns = (part[name].to_pylist() for name in part.column_names)
        for sample, conversation in zip(*columns, strict=True):
            for text in map(text_id, question_texts(turns_of(conversation))):
                row_of[text] = min(row_of.get(text, sample), sample)
    ids, sampled = _sample_ids([pa.chunked_array([pa.array(sorted(row_of), pa.string())])], limit)
    rows = {text: row_of[text] for text in ids.to_pylist()}
    task_of = _task_of(ctx, pa.array(sorted(set(rows.values())), pa.string()))
    tasks = {text: task_of[row] for text, row in rows.items() if row in task_of}
    return _with_vectors(ctx, text_embeddings.STAGE, ids, tasks, {}, sampled)


def scored_map(ctx: Context, scores: Pointer, selected: pa.Array, limit: int = MAP_IMAGES) -> MapData | None:
    """Images of a scored dataset; an image is selected if one of its rows is in `selected` (sample ids)."""
    name = embedding_fingerprint(ctx.project.image_encoder)
    if not any(p.rows > 0 and p.partition["fingerprint"] == name for p in ctx.store.pointers(SIGNAL)):
        return None
    ids, sampled = _sample_ids((part["image_id"] for part in parts(ctx, scores, ["image_id"])), limit)
    tasks: dict[str, tuple[str, str]] = {}
    chosen: dict[str, bool] = {}
    for part in parts(ctx, scores, ["sample_id", "task", "image_id"]):
        rows = part.filter(pc.is_in(part["image_id"], ids, skip_nulls=True))
        inside = pc.is_in(rows["sample_id"], selected).to_pylist()
        columns = (rows[name].to_pylist() for name in ("image_id", "sample_id", "task"))
        for image, sample, task, is_in in zip(*columns, inside, strict=True):
            tasks[image] = min(tasks.get(image, (sample, task)), (sample, task))
            chosen[image] = chosen.get(image, False) or is_in
    return _with_vectors(
        ctx, embeddings.STAGE, ids, {image: task for image, (_, task) in tasks.items()}, chosen, sampled
    )


def _sample_ids(columns: Iterable[pa.ChunkedArray], limit: int) -> tuple[pa.Array, bool]:
    """The `limit` smallest distinct ids, sorted, and whether there are more."""
    best = pa.array([], pa.string())
    more = False
    for column in columns:
        fresh = pc.unique(pa.concat_arrays([best, *column.drop_null().chunks]))
        more = more or len(fresh) > limit
        best = fresh.take(pc.select_k_unstable(fresh, limit, [("value", "ascending")]))
    return best, more


def _tasks_in_shard(ctx: Context, shard: str, image_ids: pa.Array) -> dict[str, str]:
    """Task of each image: that of its row with the smallest id, in the first dataset that has the row."""
    samples = ctx.store.pointer("samples", {"shard": shard})
    if samples is None:
        return {}
    row_of: dict[str, str] = {}
    for part in parts(ctx, samples, ["sample_id", "image_ids"]):
        flat = part["image_ids"].combine_chunks()
        images = pc.list_flatten(flat)
        rows = part["sample_id"].take(pc.list_parent_indices(flat))
        mask = pc.is_in(images, image_ids)
        for image, sample in zip(images.filter(mask).to_pylist(), rows.filter(mask).to_pylist(), strict=True):
            row_of[image] = min(row_of.get(image, sample), sample)
    task_of = _task_of(ctx, pa.array(sorted(set(row_of.values())), pa.string()))
    return {image: task_of[sample] for image, sample in row_of.items() if sample in task_of}


def _task_of(ctx: Context, wanted: pa.Array) -> dict[str, str]:
    """Task of each row, in the first dataset that has it."""
    task_of: dict[str, str] = {}
    for dataset in ctx.project.datasets:
        manifest = ctx.store.pointer("manifest", {"dataset": dataset})
        for part in parts(ctx, manifest, ["sample_id", "task"]) if manifest else ():
            found = part.filter(pc.is_in(part["sample_id"], wanted))
            for sample, task in zip(found["sample_id"].to_pylist(), found["task"].to_pylist(), strict=True):
                task_of.setdefault(sample, task)
    return task_of


def _with_vectors(
    ctx: Context,
    stage: VectorStage,
    wanted_ids: pa.Array,
    tasks: dict[str, str],
    chosen: dict[str, bool],
    sampled: bool,
) -> MapData | None:
    wanted = wanted_ids.to_pylist()
    if not wanted:
        return None
    ids, vectors = ctx.vectors.read(stage.signal, stage.fingerprint(ctx), wanted)
    if not len(ids):
        return None
    order = np.argsort(np.asarray(ids))
    names = [ids[i] for i in order]
    return MapData(
        np.asarray(vectors, dtype=np.float32)[order],
        [tasks.get(name, NO_TASK) for name in names],
        [chosen.get(name, False) for name in names],
        sampled,
    )
