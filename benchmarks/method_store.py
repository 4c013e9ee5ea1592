"""A store of synthetic signals for `bench_methods.py`, as a dataset like LLaVA-665K would leave it.

Rows of ten tasks, 94 % with an image, as many distinct images as 60 % of the rows, a few of them with many rows; one
to three questions a row, about half of them asked often. Vectors are float16 of 768 numbers (groups that overlap, with
the spectrum of a pretrained network's embeddings); every twentieth image is nearly another one. Losses of three
conditions, attention maps of two models on 576 tokens, and PreSel's reference rows with their losses. No picture lies
behind the images: pages of selections show none.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from vsel_platform.config import Project
from vsel_platform.pipeline import (
    attention,
    base_losses,
    embeddings,
    hidden_states,
    losses,
    reference,
    representations,
    text_embeddings,
)
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.lookup import dataset_shards
from vsel_platform.signals.question_texts import text_id
from vsel_platform.tables import TABLES

DATASET = "rows"
SEED = 12345
SHARD_ROWS = 10_000
TASKS, DIMENSION, GROUPS = 10, 768, 2000
IMAGE_SHARE, IMAGES_PER_ROW, NEAR_COPY = 0.94, 0.6, 20
IMAGE_TOKENS, TOP_TOKENS = 576, 172
MAX_TURNS, OFTEN_ASKED, ROWS_PER_OFTEN_ASKED = 3, 0.45, 100
Indices = NDArray[np.int64]
Halves = NDArray[np.float16]


@dataclass(frozen=True)
class Rows:
    """Which rows there are: ids, task number int64 [n], image number int64 [n] (-1: none), ids of images."""

    ids: list[str]
    tasks: Indices
    images: Indices
    image_ids: list[str]

    @property
    def shards(self) -> Iterator[tuple[str, slice]]:
        """Name and rows of each shard."""
        for start in range(0, len(self.ids), SHARD_ROWS):
            yield f"shard-{start // SHARD_ROWS:05d}", slice(start, min(start + SHARD_ROWS, len(self.ids)))


def draw_rows(n: int) -> Rows:
    """The rows; each image has one at least."""
    rng = np.random.default_rng(SEED)
    n_images, n_shown = round(IMAGES_PER_ROW * n), round(IMAGE_SHARE * n)
    more = (n_images * rng.random(n_shown - n_images) ** 3).astype(np.int64)
    images = np.concatenate([np.arange(n_images), more, np.full(n - n_shown, -1)])
    own = rng.choice(TASKS - 1, n_images, p=_falling(TASKS - 1))
    tasks = np.where(images >= 0, own[images], TASKS - 1)
    other = (images >= 0) & (rng.random(n) < 0.1)
    tasks[other] = rng.integers(0, TASKS - 1, other.sum())
    order = rng.permutation(n)
    return Rows(_ids(rng, n), tasks[order], images[order], _ids(rng, n_images))


def _falling(n: int) -> NDArray[np.float64]:
    weights = 1 / np.arange(1, n + 1)
    return np.asarray(weights / weights.sum())


def _ids(rng: np.random.Generator, n: int) -> list[str]:
    text = rng.bytes(32 * n).hex()
    return [text[start : start + 64] for start in range(0, len(text), 64)]


def write_store(project: Project, n: int) -> None:
    """Write the dataset and all its signals."""
    ctx = Context(project)
    rows = draw_rows(n)
    _write_dataset(ctx, rows)
    vectors = Vectors(rows)
    known: set[int] = set()
    asked: set[str] = set()
    for number, (shard, part) in enumerate(rows.shards):
        rng = np.random.default_rng([SEED, number])
        questions = _write_samples(ctx, rows, shard, part, rng)
        shown = rows.images[part]
        new = np.array(sorted({int(i) for i in shown if i >= 0} - known), np.int64)
        known |= set(new.tolist())
        _write_images(ctx, shard, [rows.image_ids[i] for i in new])
        _write_vectors(ctx, embeddings.STAGE, shard, [rows.image_ids[i] for i in new], vectors.of_images(new))
        ids = np.array(rows.ids[part])
        has = shown >= 0
        _write_vectors(ctx, representations.STAGE, shard, ids[has].tolist(), vectors.of_rows(shown[has], rng))
        _write_vectors(ctx, hidden_states.STAGE, shard, ids.tolist(), vectors.of_rows(shown, rng))
        fresh = sorted({text_id(text) for text in questions} - asked)
        asked |= set(fresh)
        _write_vectors(ctx, text_embeddings.STAGE, shard, fresh, vectors.of_questions(len(fresh), rng))
        _write_losses(ctx, shard, ids, rows.tasks[part], has, rng)
        _write_maps(ctx, shard, ids[has], rng)
    _write_reference(ctx, rows)


def _write_dataset(ctx: Context, rows: Rows) -> None:
    n = len(rows.ids)
    names = [shard for shard, part in rows.shards for _ in range(part.stop - part.start)]
    columns = {
        "position": np.arange(n),
        "sample_id": rows.ids,
        "shard": names,
        "task": [f"task_{task}" for task in rows.tasks.tolist()],
        "source_id": [f'"{i}"' for i in range(n)],
        "is_duplicate": np.zeros(n, np.bool_),
        "row_json": pa.nulls(n, pa.string()),
    }
    ctx.store.publish("manifest", {"dataset": DATASET}, pa.table(columns))


def _write_samples(ctx: Context, rows: Rows, shard: str, part: slice, rng: np.random.Generator) -> set[str]:
    """The contents of a shard; returns its questions."""
    n = part.stop - part.start
    n_often = max(1, len(rows.ids) // ROWS_PER_OFTEN_ASKED)
    turns = rng.integers(1, MAX_TURNS + 1, n)
    often = rng.random((n, MAX_TURNS)) < OFTEN_ASKED
    which = (n_often * rng.random((n, MAX_TURNS)) ** 2).astype(np.int64)
    questions: set[str] = set()
    conversations, row_json = [], []
    for i in range(n):
        own = [
            f"Question {which[i, t]} that is often asked" if often[i, t] else f"Question {part.start + i}, part {t}"
            for t in range(turns[i])
        ]
        questions.update(own)
        conversations.append(orjson.dumps([[r, x] for q in own for r, x in (("user", q), ("assistant", "Yes."))]))
        row_json.append(orjson.dumps({"id": str(part.start + i), "conversations": None}))
    shown = rows.images[part].tolist()
    columns = {
        "sample_id": rows.ids[part],
        "conversation": [text.decode() for text in conversations],
        "image_ids": [[rows.image_ids[i]] if i >= 0 else [] for i in shown],
        "n_turns": 2 * turns,
        "n_characters": [len(text) for text in conversations],
        "row_json": [text.decode() for text in row_json],
        "turns_key": ["conversations"] * n,
    }
    ctx.store.publish("samples", {"shard": shard}, pa.table(columns))
    return questions


def _write_images(ctx: Context, shard: str, ids: list[str]) -> None:
    n, missing = len(ids), pa.nulls(len(ids), pa.int32())
    columns = {
        "image_id": ids,
        "path": [f"no-picture/{i[:12]}.jpg" for i in ids],
        "source_path": [f"{i[:12]}.jpg" for i in ids],
        "n_bytes": missing,
        "width": missing,
        "height": missing,
        "format": pa.nulls(n, pa.string()),
    }
    ctx.store.publish("images", {"shard": shard}, pa.table(columns, schema=TABLES["images"].arrow_schema()))


class Vectors:
    """Vectors float16 [n, DIMENSION] of images, rows and questions."""

    def __init__(self, rows: Rows) -> None:
        rng = np.random.default_rng([SEED, 1])
        scale = (1 / np.sqrt(np.arange(1, DIMENSION + 1))).astype(np.float32)
        self.scale = scale
        self.centres = rng.standard_normal((GROUPS, DIMENSION), dtype=np.float32) * scale
        n = len(rows.image_ids)
        self.group = rng.choice(GROUPS, n, p=_falling(GROUPS) ** 0.6 / (_falling(GROUPS) ** 0.6).sum())
        self.shape = np.arange(n)
        copies = np.arange(NEAR_COPY, n, NEAR_COPY)
        self.shape[copies] = rng.integers(0, n, len(copies))
        self.group[copies] = self.group[self.shape[copies]]

    def of_images(self, numbers: Indices) -> Halves:
        """Vectors of images; copies differ a little from what they copy."""
        spread = np.stack(
            [np.random.default_rng([SEED, 2, i]).standard_normal(DIMENSION, np.float32) for i in self.shape[numbers]]
        )
        noise = np.random.default_rng([SEED, 3, len(numbers)]).standard_normal(spread.shape, dtype=np.float32)
        copied = np.where(self.shape[numbers] == numbers, 0.0, 0.1).astype(np.float32)[:, None]
        found = self.centres[self.group[numbers]] + (0.9 * spread + copied * noise) * self.scale
        return np.asarray(found, np.float16)

    def of_rows(self, images: Indices, rng: np.random.Generator) -> Halves:
        """Vectors of rows: a common offset, what kind of image the row shows (-1: none), and what it asks for."""
        own = rng.standard_normal((len(images), DIMENSION), dtype=np.float32) * self.scale
        shown = np.where((images >= 0)[:, None], self.centres[self.group[images]], 0)
        return np.asarray(1.0 + shown + own, np.float16)

    def of_questions(self, n: int, rng: np.random.Generator) -> Halves:
        """Vectors of questions."""
        own = rng.standard_normal((n, DIMENSION), dtype=np.float32) * self.scale
        return np.asarray(self.centres[rng.integers(0, GROUPS, n)] + np.float32(0.7) * own, np.float16)


def _write_vectors(ctx: Context, stage: Any, shard: str, ids: list[str], vectors: Halves) -> None:
    key = stage.partition(ctx, shard)
    dtype: Literal["float16"] = "float16"
    found = ctx.vectors.replace_shard(stage.signal, key["fingerprint"], shard, ids, vectors, dtype=dtype)
    ctx.store.publish_pointer(
        stage.signal,
        key,
        rows=len(ids),
        data_version=f"{shard}-{len(ids)}",
        fingerprint=key["fingerprint"],
        metadata={"lance_table": found.table, "lance_version": found.version, "dimension": DIMENSION},
    )


def _write_losses(
    ctx: Context, shard: str, ids: NDArray[np.str_], tasks: Indices, has_image: NDArray[np.bool_], rng: Any
) -> None:
    n = len(ids)
    full = rng.gamma(2.0, 0.5 + 0.05 * tasks)
    means = {"full": full, "no_question": full * rng.lognormal(0.2, 0.3, n), "no_image": full + rng.normal(0.2, 0.3, n)}
    n_tokens = rng.integers(1, 80, n).astype(np.int32)
    parts = []
    for condition, mean in means.items():
        rows = np.flatnonzero(has_image) if condition == "no_image" else np.arange(n)
        columns = {
            "sample_id": ids[rows],
            "condition": [condition] * len(rows),
            "loss_sum": (mean * n_tokens)[rows],
            "loss_mean": mean[rows],
            "n_tokens": n_tokens[rows],
            "entropy_mean": rng.gamma(2.0, 0.4, len(rows)),
            "el2n_mean": np.sqrt(1 - np.exp(-np.abs(mean)))[rows],
        }
        parts.append(pa.table(columns))
    table = pa.concat_tables(parts).sort_by([("sample_id", "ascending"), ("condition", "ascending")])
    key = base_losses.partition(ctx, shard)
    ctx.store.publish("losses", key, table, fingerprint=key["fingerprint"])


def _write_maps(ctx: Context, shard: str, ids: NDArray[np.str_], rng: np.random.Generator) -> None:
    """Maps of two models that agree more about some rows than about others."""
    n = len(ids)
    first = rng.random((n, IMAGE_TOKENS), dtype=np.float32)
    mixed = rng.random((n, 1), dtype=np.float32)
    second = mixed * rng.random(first.shape, dtype=np.float32) + (1 - mixed) * first
    for key, looks in zip(attention.partitions(ctx, shard), (first, second), strict=True):
        tops = np.sort(np.argpartition(-looks, TOP_TOKENS, axis=1)[:, :TOP_TOKENS], axis=1).astype(np.int32)
        ends = np.arange(0, n * TOP_TOKENS + 1, TOP_TOKENS, dtype=np.int32)
        columns = {
            "sample_id": ids,
            "n_steps": np.full(n, 2, np.int32),
            "n_tokens": np.full(n, IMAGE_TOKENS, np.int32),
            "top_tokens": pa.ListArray.from_arrays(ends, tops.ravel()),
            "entropy": rng.random(n),
            "sharpness": rng.random(n),
            "mass": rng.random(n),
        }
        ctx.store.publish("attention_maps", key, pa.table(columns), fingerprint=key["fingerprint"])


def _write_reference(ctx: Context, rows: Rows) -> None:
    """PreSel's reference rows, drawn by their stage, a stand-in for the model trained on them, and its losses."""
    reference.run_subset(ctx, DATASET)
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "adapter.txt").write_text("stands for an adapter\n")
        ctx.store.publish_artifact("reference_model", {"dataset": DATASET}, Path(name))
    task_of = dict(zip(rows.ids, rows.tasks.tolist(), strict=True))
    rng = np.random.default_rng([SEED, 4])
    for shard in dataset_shards(ctx, DATASET):
        ids = losses.wanted_ids(ctx, DATASET, shard)
        full = rng.gamma(2.0, 0.5, len(ids))
        question = full * (1.1 + 0.05 * np.array([task_of[i] for i in ids]))
        columns = {
            "sample_id": [i for i in ids for _ in range(2)],
            "condition": ["full", "no_question"] * len(ids),
            "loss_sum": np.stack([full, question], axis=1).ravel(),
            "loss_mean": np.stack([full, question], axis=1).ravel(),
            "n_tokens": np.ones(2 * len(ids), np.int32),
            "entropy_mean": pa.nulls(2 * len(ids), pa.float64()),
            "el2n_mean": pa.nulls(2 * len(ids), pa.float64()),
        }
        key = losses.partition(ctx, DATASET, shard)
        ctx.store.publish("losses", key, pa.table(columns), fingerprint=key["fingerprint"])
