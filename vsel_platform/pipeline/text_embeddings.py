"""Stage `text_embeddings`: every distinct question of a shard, once per text encoder."""

from collections.abc import Iterator

import numpy as np

from vsel_platform.models.images import ContentFailure
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.lookup import turns_of
from vsel_platform.pipeline.models import TEXT_EMBEDDING_CODE, confirm_weights, text_embedding_fingerprint
from vsel_platform.pipeline.vector_stage import VectorBatch, VectorStage
from vsel_platform.signals.question_texts import question_texts, text_id

SIGNAL = "text_embeddings"
BATCH_TEXTS = 2048


def _fingerprint(ctx: Context) -> str:
    return text_embedding_fingerprint(ctx.project.text_encoder)


def _texts(ctx: Context, shard: str) -> dict[str, str]:
    """Distinct questions of a shard by id."""
    table = ctx.store.read_partition("samples", {"shard": shard}, ["conversation"])
    texts = (text for row in table["conversation"].to_pylist() for text in question_texts(turns_of(row)))
    return {text_id(text): text for text in texts}


def _wanted(ctx: Context, shard: str) -> list[str]:
    return sorted(_texts(ctx, shard))


def _encode(ctx: Context, shard: str, todo: list[str]) -> Iterator[VectorBatch]:
    from vsel_platform.models.text_encoders import load_text_encoder

    encoder = load_text_encoder(ctx.project.text_encoder, ctx.project.compute.device)
    confirm_weights(ctx, _fingerprint(ctx), encoder.fingerprint)
    texts = _texts(ctx, shard)
    for start in range(0, len(todo), BATCH_TEXTS):
        ids = todo[start : start + BATCH_TEXTS]
        vectors = encoder.encode([texts[i] for i in ids])
        finite = np.isfinite(vectors).all(axis=1)
        good, bad = np.flatnonzero(finite).tolist(), np.flatnonzero(~finite).tolist()
        failures = [
            ContentFailure(ids[n], "no_vector", f"the text {texts[ids[n]][:60]!r} has no finite vector") for n in bad
        ]
        yield VectorBatch([ids[n] for n in good], vectors[good], failures)


STAGE = VectorStage(
    signal=SIGNAL,
    source="samples",
    code=TEXT_EMBEDDING_CODE,
    unit="questions embedded",
    fingerprint=_fingerprint,
    wanted=_wanted,
    compute=_encode,
)
run = STAGE.run
