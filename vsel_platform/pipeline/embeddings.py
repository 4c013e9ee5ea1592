"""Stage `image_embeddings`: every distinct image of a shard, once per encoder."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.lookup import open_image
from vsel_platform.pipeline.models import EMBEDDING_CODE, confirm_weights, embedding_fingerprint
from vsel_platform.pipeline.vector_stage import VectorBatch, VectorStage

if TYPE_CHECKING:
    from PIL.Image import Image

SIGNAL = "image_embeddings"


def _fingerprint(ctx: Context) -> str:
    return embedding_fingerprint(ctx.project.image_encoder)


def _paths(ctx: Context, shard: str) -> dict[str, str]:
    table = ctx.store.read_partition("images", {"shard": shard}, ["image_id", "path"])
    return dict(zip(table["image_id"].to_pylist(), table["path"].to_pylist(), strict=True))


def _wanted(ctx: Context, shard: str) -> list[str]:
    return sorted(_paths(ctx, shard))


def _encode(ctx: Context, shard: str, todo: list[str]) -> Iterator[VectorBatch]:
    from vsel_platform.models.encoders import load_image_encoder
    from vsel_platform.signals.image_embeddings import embed_images

    settings = ctx.project.image_encoder
    encoder = load_image_encoder(settings, ctx.project.compute.device)
    confirm_weights(ctx, _fingerprint(ctx), encoder.fingerprint)
    limit = max(d.images.max_pixels for d in ctx.project.datasets.values())
    paths = _paths(ctx, shard)

    def items() -> Iterator[tuple[str, Callable[[], "Image"]]]:
        for image_id in todo:
            yield image_id, partial(open_image, paths[image_id], max_pixels=limit)

    for batch in embed_images(encoder, items(), batch_size=settings.batch_size, decode_workers=settings.decode_workers):
        yield VectorBatch(batch.ids, batch.vectors, batch.failures)


STAGE = VectorStage(
    signal=SIGNAL,
    source="images",
    code=EMBEDDING_CODE,
    unit="images embedded",
    fingerprint=_fingerprint,
    wanted=_wanted,
    compute=_encode,
)
partition, inputs, is_current, run = STAGE.partition, STAGE.inputs, STAGE.is_current, STAGE.run
