"""Names of models in the store, and the guard against weights that change behind a name."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import orjson

from vsel_platform.config import EncoderSettings, SignalSettings, TextEncoderSettings, VlmSettings
from vsel_platform.errors import ModelError
from vsel_platform.identity import fingerprint
from vsel_platform.pipeline.context import Context

EMBEDDING_CODE = "image_embeddings-1"
LOSS_CODE = "losses-2"
REPRESENTATION_CODE = "vision_representations-1"
ATTENTION_CODE = "attention_maps-1"
HIDDEN_CODE = "hidden_states-1"
TEXT_EMBEDDING_CODE = "text_embeddings-1"
EMBEDDED_DIRS = {
    "embedded:demo": Path(__file__).resolve().parents[1] / "demo" / "base",
    "embedded:demo_second": Path(__file__).resolve().parents[1] / "demo" / "base_second",
}


def embedding_fingerprint(settings: EncoderSettings) -> str:
    """Names the embeddings of an encoder: what is computed, not how fast (batch size and workers are left out)."""
    # The default feature is not named: stores hold embeddings from before there was a choice.
    feature = {} if settings.feature == "own" else {"feature": settings.feature}
    return fingerprint(
        signal=EMBEDDING_CODE,
        name=settings.name,
        model=settings.model if settings.name == "huggingface" else "",
        revision=settings.revision,
        dtype=settings.dtype,
        **feature,
    )


def vlm_fingerprint(settings: VlmSettings) -> str:
    """Names a vision-language model with its prompt and precision."""
    return fingerprint(
        model=settings.model,
        weights=_embedded_weights(settings.model),
        revision=settings.revision,
        template=settings.template,
        dtype=settings.dtype,
        max_tokens=settings.max_tokens,
        **({"adapter": settings.adapter} if settings.adapter else {}),
    )


def _embedded_weights(model: str) -> str:
    """Hash of the weights of the model that is shipped; a hub's or a directory's are confirmed when it is loaded."""
    return _files_hash(EMBEDDED_DIRS[model]) if model in EMBEDDED_DIRS else ""


@lru_cache(maxsize=2)
def _files_hash(directory: Path) -> str:
    # Without the model's own modules: sensors ask for this name, and they load no library for models.
    digest = hashlib.sha256()
    for path in sorted(directory.iterdir()):
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def loss_fingerprint(settings: VlmSettings, adapter_version: str) -> str:
    """Names the losses of a model with a LoRA adapter."""
    return fingerprint(signal=LOSS_CODE, vlm=vlm_fingerprint(settings), adapter=adapter_version)


def base_loss_fingerprint(settings: VlmSettings) -> str:
    """Names the losses of the base model, without an adapter."""
    return loss_fingerprint(settings, "")


def representation_fingerprint(settings: VlmSettings, attention_share: float) -> str:
    """Names ScalSelect's vectors of a model; `attention_share` decides which image tokens are in them."""
    return fingerprint(signal=REPRESENTATION_CODE, vlm=vlm_fingerprint(settings), attention_share=attention_share)


def hidden_fingerprint(settings: VlmSettings, layers: Sequence[int]) -> str:
    """Names the pooled hidden states of a model at some layers."""
    return fingerprint(signal=HIDDEN_CODE, vlm=vlm_fingerprint(settings), layers=sorted(set(layers)))


def attention_fingerprint(settings: VlmSettings, signals: SignalSettings) -> str:
    """Names the attention maps of a model."""
    return fingerprint(
        signal=ATTENTION_CODE,
        vlm=vlm_fingerprint(settings),
        answer_tokens=signals.answer_tokens,
        grid=signals.attention_grid,
    )


def text_embedding_fingerprint(settings: TextEncoderSettings) -> str:
    """Names the embeddings of a text encoder."""
    return fingerprint(signal=TEXT_EMBEDDING_CODE, settings=settings.model_dump(mode="json", exclude={"batch_tokens"}))


def confirm_weights(ctx: Context, name: str, weights: str) -> None:
    """Record the weights behind a name, or check that they are still the recorded ones.

    A hub model without a pinned revision may change; mixing two versions in one table would be silent.
    Raises ModelError if the weights changed.
    """
    path = f"models/{name}.json"
    found = ctx.store.files.read_versioned(path)
    if found is None:
        ctx.store.files.write(path, orjson.dumps({"weights": weights}))
        return
    recorded = orjson.loads(found[0])["weights"]
    if recorded != weights:
        raise ModelError(
            f"model {name}: its weights changed since the stored signals were computed "
            f"({recorded} then, {weights} now); pin `revision` in the project file, or name the new one there"
        )
