"""Stage `vision_representations`: ScalSelect's vector of every row with an image, once per model."""

from collections.abc import Iterator

import pyarrow.compute as pc

from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.lookup import in_image_order
from vsel_platform.pipeline.models import REPRESENTATION_CODE, confirm_weights, representation_fingerprint
from vsel_platform.pipeline.training_rows import image_provider, shard_rows
from vsel_platform.pipeline.vector_stage import VectorBatch, VectorStage

SIGNAL = "vision_representations"


def _fingerprint(ctx: Context) -> str:
    return representation_fingerprint(ctx.project.vlm, ctx.project.signals.attention_share)


def rows_with_images(ctx: Context, shard: str) -> list[str]:
    """Ids of the rows of a shard that have an image, those of the same images side by side."""
    table = ctx.store.read_partition("samples", {"shard": shard}, ["sample_id", "image_ids"])
    seeing = table["sample_id"].filter(pc.greater(pc.list_value_length(table["image_ids"]), 0))
    return in_image_order(ctx, shard, set(seeing.to_pylist()))


def _compute(ctx: Context, shard: str, todo: list[str]) -> Iterator[VectorBatch]:
    from vsel_platform.models.load import load_vlm
    from vsel_platform.signals.vision_representations import vision_representations
    from vsel_platform.signals.windows import WindowOptions

    model = load_vlm(ctx.project.vlm, ctx.project.compute.device)
    confirm_weights(ctx, _fingerprint(ctx), model.fingerprint)
    for batch in vision_representations(
        model,
        shard_rows(ctx, shard, todo),
        image_provider(ctx),
        threshold=ctx.project.signals.attention_share,
        options=WindowOptions(ctx.project.vlm.batch_tokens),
    ):
        yield VectorBatch([v.sample_id for v in batch.values], [v.vector for v in batch.values], batch.failures)


STAGE = VectorStage(
    signal=SIGNAL,
    source="samples",
    code=REPRESENTATION_CODE,
    unit="rows represented",
    fingerprint=_fingerprint,
    wanted=rows_with_images,
    compute=_compute,
)
run = STAGE.run
