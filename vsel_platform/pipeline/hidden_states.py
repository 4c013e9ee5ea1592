"""Stage `hidden_states`: pooled hidden states of every row at chosen layers, once per model."""

from collections.abc import Iterator

from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.lookup import in_image_order
from vsel_platform.pipeline.models import HIDDEN_CODE, confirm_weights, hidden_fingerprint
from vsel_platform.pipeline.training_rows import image_provider, shard_rows
from vsel_platform.pipeline.vector_stage import VectorBatch, VectorStage

SIGNAL = "hidden_states"


def _fingerprint(ctx: Context) -> str:
    return hidden_fingerprint(ctx.project.vlm, ctx.project.signals.hidden_layers)


def _compute(ctx: Context, shard: str, todo: list[str]) -> Iterator[VectorBatch]:
    from vsel_platform.models.load import load_vlm
    from vsel_platform.signals.hidden_states import pooled_hidden_states
    from vsel_platform.signals.windows import WindowOptions

    model = load_vlm(ctx.project.vlm, ctx.project.compute.device)
    confirm_weights(ctx, _fingerprint(ctx), model.fingerprint)
    for batch in pooled_hidden_states(
        model,
        shard_rows(ctx, shard, todo),
        image_provider(ctx),
        layers=ctx.project.signals.hidden_layers,
        options=WindowOptions(ctx.project.vlm.batch_tokens),
    ):
        yield VectorBatch([v.sample_id for v in batch.values], [v.vector for v in batch.values], batch.failures)


STAGE = VectorStage(
    signal=SIGNAL,
    source="samples",
    code=HIDDEN_CODE,
    unit="rows pooled",
    fingerprint=_fingerprint,
    wanted=in_image_order,
    compute=_compute,
)
run = STAGE.run
