"""Stage `losses`: answer loss with and without the question, for the reference rows of a shard."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from vsel_platform.pipeline.context import Context, Inputs, StageResult, inputs_of
from vsel_platform.pipeline.lookup import dataset_shards, in_image_order
from vsel_platform.pipeline.loss_stage import LossTask, run_losses
from vsel_platform.pipeline.models import LOSS_CODE, loss_fingerprint, vlm_fingerprint
from vsel_platform.pipeline.timing import record_rate
from vsel_platform.pipeline.training_rows import training_rows

if TYPE_CHECKING:
    from vsel_platform.models.vlm import VisionLanguageModel


def datasets_of(ctx: Context, shard: str) -> list[str]:
    """Datasets with a reference model that have reference rows in the shard."""
    found = []
    for dataset in ctx.project.datasets:
        ready = all(ctx.store.pointer(t, {"dataset": dataset}) for t in ("manifest", "reference_model"))
        if ready and shard in dataset_shards(ctx, dataset):
            found.append(dataset)
    return found


def partition(ctx: Context, dataset: str, shard: str) -> dict[str, str]:
    """Partition of a shard's losses under the dataset's reference model."""
    model = ctx.store.require("reference_model", {"dataset": dataset})
    return {"fingerprint": loss_fingerprint(ctx.project.vlm, model.data_version), "shard": shard}


def wanted_ids(ctx: Context, dataset: str, shard: str) -> list[str]:
    """Reference rows of the dataset that lie in the shard, sorted."""
    reference = ctx.store.read_partition("reference_subset", {"dataset": dataset}, ["sample_id"])["sample_id"]
    here = ctx.store.read_partition("samples", {"shard": shard}, ["sample_id"])["sample_id"]
    return sorted(here.filter(pc.is_in(here, reference.combine_chunks())).to_pylist())


def inputs(ctx: Context, dataset: str, shard: str) -> Inputs:
    """What the stage reads: the shard, the model, and which of the rows are reference rows."""
    pointers = [
        ctx.store.require("samples", {"shard": shard}),
        ctx.store.require("reference_model", {"dataset": dataset}),
    ]
    return inputs_of(pointers, rows=wanted_ids(ctx, dataset, shard), code=LOSS_CODE)


def is_current(ctx: Context, shard: str) -> bool:
    """Whether the stored losses cover the present reference rows under the present model."""
    for dataset in datasets_of(ctx, shard):
        pointer = ctx.store.pointer("losses", partition(ctx, dataset, shard))
        if pointer is None or pointer.input_fingerprint != inputs(ctx, dataset, shard).fingerprint:
            return False
    return True


def run(ctx: Context, shard: str) -> StageResult:
    """Compute and publish what is missing, for every dataset that has reference rows in the shard."""
    start = time.perf_counter()
    results = [run_losses(ctx, _task(ctx, dataset, shard), "losses") for dataset in datasets_of(ctx, shard)]
    versions = sorted(result.data_version for result in results)
    n_computed = sum(result.computed for result in results)
    record_rate(ctx, "losses", vlm_fingerprint(ctx.project.vlm), n_computed, time.perf_counter() - start)
    return StageResult(
        "losses",
        {"shard": shard},
        "-".join(versions) or "none",
        sum(r.rows for r in results),
        computed=n_computed,
        reused=sum(r.reused for r in results),
        failed=sum(r.failed for r in results),
        seconds=time.perf_counter() - start,
        references=[reference for r in results for reference in r.references],
    )


def _task(ctx: Context, dataset: str, shard: str) -> LossTask:
    return LossTask(
        partition(ctx, dataset, shard),
        inputs(ctx, dataset, shard),
        in_image_order(ctx, shard, wanted_ids(ctx, dataset, shard)),
        ("full", "no_question"),
        partial(_reference_model, ctx, dataset),
        partial(training_rows, ctx, dataset),
    )


@contextmanager
def _reference_model(ctx: Context, dataset: str) -> "Iterator[VisionLanguageModel]":
    from vsel_platform.models.load import load_vlm
    from vsel_platform.pipeline.artifacts import fetched

    with fetched(ctx, ctx.store.require("reference_model", {"dataset": dataset})) as adapter:
        yield load_vlm(ctx.project.vlm, ctx.project.compute.device, adapter_dir=str(adapter))
