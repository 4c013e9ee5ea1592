"""Stage `attention_maps`: where two models look while they answer the rows of a shard in a word (Free2DS)."""

import time
from collections.abc import Iterator
from functools import partial

import pyarrow as pa

from vsel_platform.config import VlmSettings
from vsel_platform.errors import ConfigError
from vsel_platform.pipeline.context import Context, Inputs, StageResult, inputs_of
from vsel_platform.pipeline.models import ATTENTION_CODE, attention_fingerprint, confirm_weights
from vsel_platform.pipeline.representations import rows_with_images
from vsel_platform.pipeline.row_stage import RowBatch, RowTask, run_rows
from vsel_platform.pipeline.timing import record_rate
from vsel_platform.pipeline.training_rows import image_provider, shard_rows
from vsel_platform.tables import TABLES

TABLE = "attention_maps"


def models(ctx: Context) -> tuple[VlmSettings, VlmSettings]:
    """The two models. Raises ConfigError if the project file has no second one."""
    if ctx.project.second_vlm is None:
        raise ConfigError("attention maps compare two models: name the other one as `second_vlm` in the project file")
    return ctx.project.vlm, ctx.project.second_vlm


def partitions(ctx: Context, shard: str) -> list[dict[str, str]]:
    """Partitions of a shard's maps, one for each model."""
    return [{"fingerprint": attention_fingerprint(m, ctx.project.signals), "shard": shard} for m in models(ctx)]


def inputs(ctx: Context, shard: str) -> Inputs:
    """What the stage reads: the shard."""
    return inputs_of([ctx.store.require("samples", {"shard": shard})], code=ATTENTION_CODE)


def is_current(ctx: Context, shard: str) -> bool:
    """Whether the stored maps are those of the present rows under the present models."""
    wanted = inputs(ctx, shard).fingerprint
    found = [ctx.store.pointer(TABLE, key) for key in partitions(ctx, shard)]
    return all(pointer is not None and pointer.input_fingerprint == wanted for pointer in found)


def run(ctx: Context, shard: str) -> StageResult:
    """Compute and publish what is missing, for both models."""
    start = time.perf_counter()
    ids = rows_with_images(ctx, shard)
    results = [
        run_rows(ctx, _task(ctx, model, key, ids), TABLE)
        for model, key in zip(models(ctx), partitions(ctx, shard), strict=True)
    ]
    seconds = time.perf_counter() - start
    computed = sum(result.computed for result in results)
    record_rate(ctx, TABLE, rate_model(ctx), computed, seconds)
    return StageResult(
        TABLE,
        {"shard": shard},
        "-".join(result.data_version for result in results),
        sum(result.rows for result in results),
        computed=computed,
        reused=sum(result.reused for result in results),
        failed=sum(result.failed for result in results),
        seconds=seconds,
        references=[reference for result in results for reference in result.references],
    )


def rate_model(ctx: Context) -> str:
    """Names both models, for the stage's rate."""
    return "-".join(attention_fingerprint(model, ctx.project.signals) for model in models(ctx))


def _task(ctx: Context, model: VlmSettings, key: dict[str, str], ids: list[str]) -> RowTask:
    return RowTask(
        TABLE,
        key,
        ATTENTION_CODE,
        inputs(ctx, key["shard"]),
        ids,
        f"rows answered by {model.model}",
        lambda parts: {i for part in parts for i in part["sample_id"].to_pylist()},
        partial(_compute, ctx, model, key),
    )


def _compute(ctx: Context, settings: VlmSettings, key: dict[str, str], ids: list[str]) -> Iterator[RowBatch]:
    from vsel_platform.models.load import load_vlm
    from vsel_platform.signals.attention_maps import attention_maps
    from vsel_platform.signals.windows import WindowOptions

    vlm = load_vlm(settings, ctx.project.compute.device)
    confirm_weights(ctx, key["fingerprint"], vlm.fingerprint)
    signals = ctx.project.signals
    for batch in attention_maps(
        vlm,
        shard_rows(ctx, key["shard"], ids),
        image_provider(ctx),
        answer_tokens=signals.answer_tokens,
        grid=signals.attention_grid,
        options=WindowOptions(settings.batch_tokens),
    ):
        records = [
            {
                "sample_id": v.sample_id,
                "n_steps": v.n_steps,
                "n_tokens": v.n_tokens,
                "top_tokens": v.top_tokens.tolist(),
                "entropy": v.entropy,
                "sharpness": v.sharpness,
                "mass": v.mass,
            }
            for v in batch.values
        ]
        table = pa.Table.from_pylist(records, schema=TABLES[TABLE].arrow_schema())
        yield RowBatch(table, batch.failures, len(batch.values) + len(batch.failures))
