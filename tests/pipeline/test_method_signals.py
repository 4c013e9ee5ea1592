"""Signals of a dataset read from the store: aligned with its rows, whatever the store holds besides or lacks."""

import numpy as np
import pyarrow as pa
import pytest

from vsel_platform.config import Project
from vsel_platform.pipeline import attention, embeddings, method_signals
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.method_signals import StoreSignals

ROWS = [f"row{i:02}" for i in range(12)]
TOPS = {"row03": [4, 1], "row07": [], "row11": [0, 2, 8]}


def image_of(i):
    return f"image{(5 * i) % 8}"


@pytest.fixture
def ctx(tmp_path):
    """Twelve rows of eight images in two shards; rows 2 and 9 are text only."""
    dataset = {"rows": {"source": str(tmp_path)}}
    values = {"name": "p", "store": str(tmp_path), "datasets": dataset, "second_vlm": {"model": "x"}}
    ctx = Context(Project.model_validate(values))
    order = [ROWS[i] for i in np.random.default_rng(0).permutation(12)]
    manifest = {
        "position": range(12),
        "sample_id": order,
        "shard": ["s0" if i < "row06" else "s1" for i in order],
        "task": ["t"] * 12,
        "source_id": ["1"] * 12,
        "is_duplicate": [False] * 12,
        "row_json": pa.nulls(12, pa.string()),
    }
    ctx.store.publish("manifest", {"dataset": "rows"}, pa.table(manifest))
    for number in range(2):
        own = list(range(6 * number, 6 * number + 6))
        samples = {
            "sample_id": [ROWS[i] for i in own],
            "conversation": ["[]"] * 6,
            "image_ids": pa.array([[] if i in (2, 9) else [image_of(i)] for i in own], pa.list_(pa.string())),
            "n_turns": [2] * 6,
            "n_characters": own,
            "row_json": ["{}"] * 6,
            "turns_key": pa.nulls(6, pa.string()),
        }
        ctx.store.publish("samples", {"shard": f"s{number}"}, pa.table(samples))
    return ctx


def pointers(ctx, *tables):
    return [pointer for table in ("manifest", "samples", *tables) for pointer in ctx.store.pointers(table)]


def write_vectors(ctx, numbers):
    """A vector that says its image's number, for some images and for one of another dataset."""
    key = embeddings.partition(ctx, "s0")
    vectors = np.array([[i, 1.0] for i in numbers] + [[99.0, 1.0]], np.float32)
    ids = [*(f"image{i}" for i in numbers), "another"]
    found = ctx.vectors.replace_shard("image_embeddings", key["fingerprint"], "s0", ids, vectors)
    more = {"fingerprint": key["fingerprint"], "metadata": {"lance_version": found.version}}
    ctx.store.publish_pointer("image_embeddings", key, rows=len(ids), data_version="v", **more)


@pytest.mark.parametrize("missing", [(), (0,), (3, 4, 7), tuple(range(1, 8))])
def test_rows_find_their_vectors_and_only_those_of_the_dataset_are_there(ctx, missing, monkeypatch):
    monkeypatch.setattr(method_signals, "MOVED_ROWS", 2)
    shown = [None if i in (2, 9) else (5 * i) % 8 for i in range(12)]
    numbers = sorted({n for n in shown if n is not None} - set(missing))
    write_vectors(ctx, numbers)
    index, matrix = StoreSignals(ctx, pointers(ctx, "image_embeddings")).vectors("image_embeddings")
    assert [None if place < 0 else int(matrix[place, 0]) for place in index] == [
        None if n in missing else n for n in shown
    ]
    assert matrix[:, 0].tolist() == numbers


def test_top_tokens_belong_to_their_rows(ctx):
    for key in (key for shard in ("s0", "s1") for key in attention.partitions(ctx, shard)):
        names = [i for i in (*TOPS, "of another dataset") if (i < "row06") == (key["shard"] == "s0")]
        table = {
            "sample_id": names,
            "n_steps": [2] * len(names),
            "n_tokens": [9] * len(names),
            "top_tokens": pa.array([TOPS.get(i, [5]) for i in names], pa.list_(pa.int32())),
            "entropy": [1.0] * len(names),
            "sharpness": [float(len(i)) for i in names],
            "mass": [1.0] * len(names),
        }
        ctx.store.publish("attention_maps", key, pa.table(table), fingerprint=key["fingerprint"])
    for looks in StoreSignals(ctx, pointers(ctx, "attention_maps")).attention_tops():
        assert {ROWS[i]: found.tolist() for i, found in enumerate(looks.tops) if looks.n_tokens[i]} == TOPS
        assert looks.n_tokens.tolist() == [9 if i in TOPS else 0 for i in ROWS]
        assert np.flatnonzero(np.isfinite(looks.sharpness)).tolist() == [3, 7, 11]
