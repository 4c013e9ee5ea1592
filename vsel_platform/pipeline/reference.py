"""Stages `reference_subset` and `reference_model`: the rows that get instructions first, and what learns from them."""

import tempfile
import time
from collections import defaultdict
from pathlib import Path

import orjson
import pyarrow as pa

from vsel_platform.config import ReferenceSettings
from vsel_platform.errors import NotMaterializedError
from vsel_platform.identity import fingerprint, hash_ids
from vsel_platform.pipeline.context import Context, Inputs, StageResult, inputs_of
from vsel_platform.pipeline.lookup import Content, distinct_contents, manifest_shards, samples_of
from vsel_platform.pipeline.models import confirm_weights, vlm_fingerprint
from vsel_platform.pipeline.quality import publish_checked
from vsel_platform.pipeline.timing import record_rate
from vsel_platform.pipeline.trained import record_training
from vsel_platform.pipeline.training_rows import image_provider, training_rows
from vsel_platform.selection.stable_hash import stable_uniform
from vsel_platform.storage.pointers import Pointer
from vsel_platform.training.resume import TrainingStates

SUBSET_CODE = "reference_subset-1"
MODEL_CODE = "reference_model-3"


def choose_reference(
    contents: list[Content], first_image: dict[str, str], settings: ReferenceSettings
) -> list[tuple[str, str, str]]:
    """(sample_id, task, image_id) of the reference rows, sorted by sample_id.

    An image of a task is drawn if its stable hash lies below `fraction`, with all rows of the task that show
    it; so a grown dataset keeps its reference rows. A task without any drawn image gets the one with the
    smallest hash. Text-only rows are never drawn.
    """
    images: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in contents:
        if row.sample_id in first_image:
            images[row.task][first_image[row.sample_id]].append(row.sample_id)
    chosen = []
    for task, by_image in images.items():
        ids = sorted(by_image)
        uniform = dict(zip(ids, stable_uniform(settings.seed, [f"{task}\n{i}" for i in ids]), strict=True))
        drawn = [i for i in ids if uniform[i] < settings.fraction] or [min(ids, key=lambda i: (uniform[i], i))]
        chosen += [(sample, task, image) for image in drawn for sample in by_image[image]]
    return sorted(chosen)


def first_images(ctx: Context, manifest: Pointer) -> dict[str, str]:
    """First image of every row that has one, by sample id, in the shards of a state of a dataset."""
    table = samples_of(ctx, manifest_shards(ctx, manifest), None, ["sample_id", "image_ids"])
    pairs = zip(table["sample_id"].to_pylist(), table["image_ids"].to_pylist(), strict=True)
    return {sample: images[0] for sample, images in pairs if images}


def subset_inputs(ctx: Context, dataset: str) -> Inputs:
    """What `reference_subset` reads: the manifest."""
    settings = ctx.project.reference
    manifest = ctx.store.require("manifest", {"dataset": dataset})
    return inputs_of([manifest], fraction=settings.fraction, seed=settings.seed, code=SUBSET_CODE)


def subset_is_current(ctx: Context, dataset: str) -> bool:
    """Whether the stored subset was drawn from the present manifest with the present settings."""
    pointer = ctx.store.pointer("reference_subset", {"dataset": dataset})
    return pointer is not None and pointer.input_fingerprint == subset_inputs(ctx, dataset).fingerprint


def run_subset(ctx: Context, dataset: str) -> StageResult:
    """Draw and publish the reference subset of a dataset."""
    start = time.perf_counter()
    wanted = subset_inputs(ctx, dataset)
    manifest, contents = distinct_contents(ctx, dataset)
    rows = choose_reference(contents, first_images(ctx, manifest), ctx.project.reference)
    table = pa.table(
        {name: [row[i] for row in rows] for i, name in enumerate(("sample_id", "task", "image_id"))},
        schema=pa.schema([(name, pa.string()) for name in ("sample_id", "task", "image_id")]),
    )
    pointer = publish_checked(
        ctx,
        "reference_subset",
        {"dataset": dataset},
        table,
        input_fingerprint=wanted.fingerprint,
        inputs=wanted.references,
        code_version=SUBSET_CODE,
        run_id=ctx.run_id,
    )
    record_rate(ctx, "reference_subset", "", len(contents), time.perf_counter() - start)
    return StageResult(
        "reference_subset",
        {"dataset": dataset},
        pointer.data_version,
        pointer.rows,
        seconds=time.perf_counter() - start,
        references=[pointer.reference],
        metadata={"rows_of_dataset": len(contents), "tasks": len({task for _, task, _ in rows})},
    )


def model_settings_fingerprint(ctx: Context) -> str:
    """Names how a reference model is trained; it does not name the rows."""
    lora = ctx.project.reference.lora.model_dump()
    return fingerprint(vlm=vlm_fingerprint(ctx.project.vlm), lora=lora, code=MODEL_CODE)


def model_is_current(ctx: Context, dataset: str) -> bool:
    """Whether the stored model may still score: same settings, and the subset has not drifted too far."""
    pointer = ctx.store.pointer("reference_model", {"dataset": dataset})
    if pointer is None or pointer.fingerprint != model_settings_fingerprint(ctx):
        return False
    present = set(
        ctx.store.read_partition("reference_subset", {"dataset": dataset}, ["sample_id"])["sample_id"].to_pylist()
    )
    name = next(file.path for file in pointer.files if file.path.endswith("/reference_ids.json"))
    trained = set(orjson.loads(ctx.store.files.read(name)))
    return drift(trained, present) <= ctx.project.reference.refresh_growth


def drift(trained: set[str], present: set[str]) -> float:
    """Share of changed rows: |symmetric difference| / |trained|; infinite if nothing was trained on."""
    return len(trained ^ present) / len(trained) if trained else float("inf")


def run_model(ctx: Context, dataset: str) -> StageResult:
    """Train the reference model of a dataset, or keep the stored one if it may still score."""
    start = time.perf_counter()
    subset = ctx.store.require("reference_subset", {"dataset": dataset})
    if model_is_current(ctx, dataset):
        kept = ctx.store.require("reference_model", {"dataset": dataset})
        return StageResult(
            "reference_model",
            {"dataset": dataset},
            kept.data_version,
            0,
            reused=1,
            seconds=time.perf_counter() - start,
            references=[kept.reference],
            metadata=kept.metadata,
        )
    ids = ctx.store.read(subset, ["sample_id"])["sample_id"].to_pylist()
    if not ids:
        raise NotMaterializedError(
            f"dataset {dataset}: no rows with images, so there is no reference subset to train on"
        )
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name) / "adapter"
        metadata = _train(ctx, dataset, ids, directory)
        if not ctx.share.is_main:
            return StageResult("reference_model", {"dataset": dataset}, "", 0)
        (directory / "reference_ids.json").write_bytes(orjson.dumps(sorted(ids)))
        pointer = ctx.store.publish_artifact(
            "reference_model",
            {"dataset": dataset},
            directory,
            fingerprint=model_settings_fingerprint(ctx),
            input_fingerprint=fingerprint(rows=hash_ids(ids), settings=model_settings_fingerprint(ctx)),
            inputs=[subset.reference],
            code_version=MODEL_CODE,
            run_id=ctx.run_id,
            metadata=metadata,
        )
    TrainingStates(ctx.store.files, f"training-{dataset}-reference-{pointer.input_fingerprint}").clear()
    passes = round(len(ids) * ctx.project.reference.lora.epochs)
    spent = time.perf_counter() - start
    record_training(ctx, "reference_model", vlm_fingerprint(ctx.project.vlm), passes, metadata, spent)
    return StageResult(
        "reference_model",
        {"dataset": dataset},
        pointer.data_version,
        len(ids),
        computed=1,
        seconds=spent,
        references=[pointer.reference],
        metadata=metadata,
    )


def _train(ctx: Context, dataset: str, ids: list[str], directory: Path) -> dict[str, object]:
    from vsel_platform.pipeline.training import resolved_runtime
    from vsel_platform.training.lora import TrainingJob, train_lora

    key = fingerprint(rows=hash_ids(ids), settings=model_settings_fingerprint(ctx))
    report = train_lora(
        ctx.project.vlm,
        training_rows(ctx, dataset, ids),
        ctx.project.reference.lora,
        image_provider(ctx),
        directory,
        TrainingJob(
            device=ctx.project.compute.device,
            on_step=lambda step, total: ctx.progress("training steps", step, total),
            confirm=lambda weights: confirm_weights(ctx, vlm_fingerprint(ctx.project.vlm), weights),
            states=TrainingStates(ctx.store.files, f"training-{dataset}-reference-{key}"),
            runtime=resolved_runtime(ctx),
            share=ctx.share,
            name=f"{ctx.project.name}-{dataset}-reference",
        ),
        origin={"dataset": f"{dataset} (its reference rows)"},
    )
    return report.to_dict()
