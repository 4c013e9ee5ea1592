"""Checks of what is no table: vectors of a shard, and adapters that were trained."""

import math
from statistics import fmean

from vsel_platform.pipeline.artifacts import training_losses
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.quality import Outcome
from vsel_platform.pipeline.vector_stage import VectorStage
from vsel_platform.storage.pointers import Pointer

ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json", "README.md")


def every_content_has_a_vector(ctx: Context, stage: VectorStage, shard: str) -> Outcome:
    """Every wanted content of the shard has a vector, or a failure that says why it has none."""
    key = stage.partition(ctx, shard)
    wanted = sorted(stage.wanted(ctx, shard))
    known = ctx.vectors.existing_ids(stage.signal, key["fingerprint"], wanted)
    failures = ctx.store.pointer("signal_failures", {"signal": stage.signal, **key})
    failed = set(ctx.store.read(failures, ["content_id"])["content_id"].to_pylist()) if failures else set()
    without = [content for content in wanted if content not in known and content not in failed]
    detail = f"{len(wanted)} wanted, {len(known)} have a vector, {len(failed)} failed with a reason"
    if without:
        detail += f", {len(without)} have neither, first {without[0]}"
    return Outcome("every_content_has_a_vector", not without, detail)


def adapter_is_complete(ctx: Context, pointer: Pointer) -> Outcome:
    """Weights, configuration and model card of the adapter are in the store and not empty."""
    paths = {file.path.rsplit("/", 1)[-1]: file for file in pointer.files}
    sizes = {name: paths[name].bytes for name in ADAPTER_FILES if name in paths and _is_there(ctx, paths[name].path)}
    missing = [name for name in ADAPTER_FILES if not sizes.get(name)]
    found = ", ".join(f"{name} {size:,} bytes" for name, size in sizes.items())
    return Outcome("adapter_is_complete", not missing, f"{found}; missing or empty: {', '.join(missing) or 'none'}")


def _is_there(ctx: Context, path: str) -> bool:
    return ctx.store.files.exists(path)


def losses_are_finite(ctx: Context, pointer: Pointer) -> Outcome:
    """The loss of every training step is a finite number."""
    losses = training_losses(ctx, pointer)
    if losses is None:
        return Outcome("losses_are_finite", True, "this adapter has no record of its steps: an earlier version made it")
    bad = [step for step, loss in enumerate(losses, start=1) if not math.isfinite(loss)]
    detail = f"{len(losses)} steps, {len(bad)} without a finite loss" + (f", first step {bad[0]}" if bad else "")
    return Outcome("losses_are_finite", bool(losses) and not bad, detail)


def loss_fell(ctx: Context, pointer: Pointer) -> Outcome:
    """The mean loss of the last tenth of the steps is below that of the first tenth."""
    losses = training_losses(ctx, pointer)
    if losses is None or len(losses) < 2:
        return Outcome("loss_fell", True, "fewer than two recorded steps: nothing to compare")
    n = max(1, len(losses) // 10)
    first, last = fmean(losses[:n]), fmean(losses[-n:])
    return Outcome(
        "loss_fell",
        last < first,
        f"mean of the first and of the last {n} of {len(losses)} steps: {first:.4g}, {last:.4g} nat/token",
    )
