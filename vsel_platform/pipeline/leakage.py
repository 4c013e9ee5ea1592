"""Stage `leakage`: which questions of the project's benchmarks stand in the rows that a recipe selected."""

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from vsel_platform.errors import DataError
from vsel_platform.evaluation.leakage import BenchmarkText, Leakage, TrainingText, find_leaks
from vsel_platform.evaluation.near_images import NearImage, near_images
from vsel_platform.identity import fingerprint
from vsel_platform.pipeline import embeddings
from vsel_platform.pipeline.asked import image_state
from vsel_platform.pipeline.benchmarks import Benchmark, benchmark_fingerprint, read_benchmark
from vsel_platform.pipeline.context import Context, Inputs, StageResult, inputs_of
from vsel_platform.pipeline.lookup import dataset_shards
from vsel_platform.pipeline.models import embedding_fingerprint
from vsel_platform.pipeline.quality import publish_checked
from vsel_platform.pipeline.timing import record_rate
from vsel_platform.pipeline.training_rows import ModelRow, training_rows
from vsel_platform.storage.pointers import Pointer
from vsel_platform.tables import TABLES

if TYPE_CHECKING:
    from PIL.Image import Image

    from vsel_platform.reports.leak_texts import Texts

CODE = "leakage-3"
PAGE = "leakage_page"
IMAGE_SIGNAL = "benchmark_images"
"""Embeddings of benchmarks' images: a table of their own, so that no data set's vectors have strangers among them."""


@dataclass(frozen=True)
class _Search:
    """What was found of a benchmark, in words too, how many images it has, how many of them could not be read."""

    leaks: Leakage
    texts: "Texts"
    n_images: int
    n_unread: int


def inputs(ctx: Context, recipe: str) -> Inputs:
    """What the stage reads: the selection, the benchmarks, and the embeddings of images that there are."""
    dataset = ctx.project.recipe(recipe).dataset
    return inputs_of(
        [ctx.store.require("selected_subset", {"recipe": recipe}), *_embedded(ctx, dataset)],
        benchmarks={
            name: [benchmark_fingerprint(ctx, name), image_state(ctx, name)] for name in ctx.project.benchmarks
        },
        settings=ctx.project.evaluation.leakage.model_dump(),
        code=CODE,
    )


def is_current(ctx: Context, recipe: str) -> bool:
    """Whether the stored findings are of the present selection and benchmarks."""
    pointer = ctx.store.pointer("leakage", {"recipe": recipe})
    return pointer is not None and pointer.input_fingerprint == inputs(ctx, recipe).fingerprint


def _embedded(ctx: Context, dataset: str) -> list[Pointer]:
    """Image embeddings of a dataset, if all of its shards have them."""
    shards = dataset_shards(ctx, dataset)
    found = [ctx.store.pointer(embeddings.SIGNAL, embeddings.partition(ctx, shard)) for shard in shards]
    known = [pointer for pointer in found if pointer is not None]
    return known if len(known) == len(shards) else []


def run(ctx: Context, recipe: str) -> StageResult:
    """Look for the questions of every benchmark in the selected rows.

    Raises DataError if none of a benchmark's images can be read: finding nothing would say nothing.
    """
    start = time.perf_counter()
    wanted = inputs(ctx, recipe)
    dataset = ctx.project.recipe(recipe).dataset
    ids = ctx.store.read_partition("selected_subset", {"recipe": recipe}, ["sample_id"])["sample_id"].to_pylist()
    rows = training_rows(ctx, dataset, ids)
    found = {name: _searched(ctx, read_benchmark(ctx, name), dataset, rows) for name in ctx.project.benchmarks}
    lineage: dict[str, Any] = {
        "input_fingerprint": wanted.fingerprint,
        "inputs": wanted.references,
        "code_version": CODE,
        "run_id": ctx.run_id,
    }
    metadata = {
        "near images compared": bool(_embedded(ctx, dataset)),
        **{
            f"{name}: questions concerned": f"{own.leaks.n_affected} of {own.leaks.n_questions}"
            for name, own in found.items()
        },
        **{f"{name}: images not read": f"{own.n_unread} of {own.n_images}" for name, own in found.items()},
    }
    _publish_page(ctx, recipe, found, lineage)
    pointer = publish_checked(ctx, "leakage", {"recipe": recipe}, _table(found), metadata=metadata, **lineage)
    record_rate(ctx, "leakage", "", len(rows), time.perf_counter() - start)
    return StageResult(
        "leakage",
        {"recipe": recipe},
        pointer.data_version,
        pointer.rows,
        computed=len(rows),
        seconds=time.perf_counter() - start,
        references=[pointer.reference],
        metadata=metadata,
    )


def _publish_page(ctx: Context, recipe: str, found: dict[str, _Search], lineage: dict[str, Any]) -> None:
    from vsel_platform.reports.leakage import leakage_markdown, leakage_page

    with tempfile.TemporaryDirectory() as name:
        for benchmark, own in found.items():
            page = leakage_page(
                own.leaks,
                own.texts,
                benchmark=benchmark,
                dataset=f"the selection {recipe}",
                n_images=own.n_images,
                n_unread=own.n_unread,
            )
            (Path(name) / f"{benchmark}.html").write_text(page, "utf-8")
            (Path(name) / f"{benchmark}.md").write_text(leakage_markdown(own.leaks, own.texts), "utf-8")
        ctx.store.publish_artifact(PAGE, {"recipe": recipe}, Path(name), **lineage)


def _table(found: dict[str, _Search]) -> pa.Table:
    rows = [
        {
            "benchmark": name,
            "question_id": one.question_id,
            "kind": one.kind,
            "found_in": one.image_id or one.sample_id,
            "sample_id": one.sample_id,
            "value": float(one.value),
        }
        for name, own in found.items()
        for one in own.leaks.findings
    ]
    return pa.Table.from_pylist(rows, schema=TABLES["leakage"].arrow_schema())


def _searched(ctx: Context, benchmark: Benchmark, dataset: str, rows: list[ModelRow]) -> _Search:
    from vsel_platform.reports.leak_texts import texts_of

    identity, n_unread = _identities(benchmark)
    questions = [
        BenchmarkText(
            question.question_id,
            tuple(identity[image] for image in question.images if image in identity),
            question.turns[-1][1] if question.turns else "",
            question.answers,
        )
        for question in benchmark.questions
    ]
    training = (TrainingText(row.sample_id, row.images, row.turns) for row in rows)
    near = _near(ctx, benchmark, identity, rows) if _embedded(ctx, dataset) else []
    leaks = find_leaks(questions, training, near, n_words=ctx.project.evaluation.leakage.words)
    texts = texts_of(ctx, dataset, benchmark.questions, rows, leaks)
    return _Search(leaks, texts, len(identity) + n_unread, n_unread)


def _identities(benchmark: Benchmark) -> tuple[dict[str, str], int]:
    """Image id (sha256 of the file) of every image of a benchmark that can be read, and how many cannot.

    Raises DataError if there are images and none can be read.
    """
    found: dict[str, str] = {}
    unread: dict[str, str] = {}
    for image in dict.fromkeys(image for question in benchmark.questions for image in question.images):
        try:
            found[image] = hashlib.sha256(benchmark.image_bytes(image)).hexdigest()
        except DataError as error:
            unread[image] = str(error)
    if unread and not found:
        raise DataError(
            f"benchmarks.{benchmark.name}.image_root: none of {len(unread):,} images can be read, so whether they "
            f"stand in the training rows is not known; the first: {next(iter(unread.values()))}"
        )
    return found, len(unread)


def _near(ctx: Context, benchmark: Benchmark, identity: dict[str, str], rows: list[ModelRow]) -> list[NearImage]:
    """Pairs of a selected image and one of the benchmark that look alike to the project's image encoder."""
    settings = ctx.project.image_encoder
    name = embedding_fingerprint(settings)
    known = ctx.vectors.existing_ids(IMAGE_SIGNAL, name, list(identity.values()))
    missing = {i: image for image, i in identity.items() if i not in known}
    if missing:
        _embed(ctx, benchmark, name, missing)
    theirs, vectors = ctx.vectors.read(IMAGE_SIGNAL, name, sorted(set(identity.values())))
    ours = ctx.vectors.read(embeddings.SIGNAL, name, sorted({image for row in rows for image in row.images}))
    return near_images(
        [(ours[0], _unit(ours[1]))], theirs, _unit(vectors), ctx.project.evaluation.leakage.near_duplicate
    )


def _embed(ctx: Context, benchmark: Benchmark, name: str, missing: dict[str, str]) -> None:
    """Embed images `{id: path}` of a benchmark and keep their vectors."""
    from vsel_platform.models.encoders import load_image_encoder
    from vsel_platform.signals.image_embeddings import embed_images

    settings = ctx.project.image_encoder
    encoder = load_image_encoder(settings, ctx.project.compute.device)

    def items() -> "Iterator[tuple[str, Callable[[], Image]]]":
        for image_id, image in sorted(missing.items()):
            yield image_id, partial(benchmark.image, image)

    ids: list[str] = []
    vectors: list[Any] = []
    for batch in embed_images(encoder, items(), batch_size=settings.batch_size, decode_workers=settings.decode_workers):
        ids += batch.ids
        vectors.append(batch.vectors)
        ctx.progress("images of benchmarks embedded", len(ids), len(missing))
    if ids:
        shard = fingerprint(benchmark=benchmark.name, ids=sorted(ids))
        ctx.vectors.replace_shard(IMAGE_SIGNAL, name, shard, ids, np.concatenate(vectors))


def _unit(vectors: Any) -> Any:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)
