"""Stage `base_losses`: answer loss of every row of a shard under the base model and three conditions."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from vsel_platform.pipeline.by_products import by_products
from vsel_platform.pipeline.context import Context, Inputs, StageResult, inputs_of
from vsel_platform.pipeline.lookup import in_image_order
from vsel_platform.pipeline.loss_stage import LossTask, run_losses
from vsel_platform.pipeline.models import LOSS_CODE, base_loss_fingerprint, vlm_fingerprint
from vsel_platform.pipeline.timing import record_rate
from vsel_platform.pipeline.training_rows import shard_rows

if TYPE_CHECKING:
    from vsel_platform.models.vlm import VisionLanguageModel


def partition(ctx: Context, shard: str) -> dict[str, str]:
    """Partition of a shard's losses under the base model."""
    return {"fingerprint": base_loss_fingerprint(ctx.project.vlm), "shard": shard}


def inputs(ctx: Context, shard: str) -> Inputs:
    """What the stage reads: the shard."""
    return inputs_of([ctx.store.require("samples", {"shard": shard})], code=LOSS_CODE)


def is_current(ctx: Context, shard: str) -> bool:
    """Whether the stored losses are those of the present rows under the present model."""
    pointer = ctx.store.pointer("losses", partition(ctx, shard))
    return pointer is not None and pointer.input_fingerprint == inputs(ctx, shard).fingerprint


def run(ctx: Context, shard: str) -> StageResult:
    """Compute and publish what is missing."""
    start = time.perf_counter()
    ids = in_image_order(ctx, shard)
    task = LossTask(
        partition(ctx, shard),
        inputs(ctx, shard),
        ids,
        ("full", "no_question", "no_image"),
        partial(_base_model, ctx),
        partial(shard_rows, ctx, shard),
        partial(by_products, ctx, shard),
    )
    result = run_losses(ctx, task, "base_losses")
    seconds = time.perf_counter() - start
    record_rate(ctx, "base_losses", vlm_fingerprint(ctx.project.vlm), result.computed, seconds)
    return replace(result, seconds=seconds)


@contextmanager
def _base_model(ctx: Context) -> "Iterator[VisionLanguageModel]":
    from vsel_platform.models.load import load_vlm

    yield load_vlm(ctx.project.vlm, ctx.project.compute.device)
