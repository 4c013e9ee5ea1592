"""Models of the original LLaVA and SQ-LLaVA format from sizes and weights: `mlp2x_gelu` or `cluster` projector."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vsel_platform.errors import ModelError
from vsel_platform.models.prototype_extractor import PrototypeOptions
from vsel_platform.models.prototypes import PrototypeProjector

_UNUSED = "model.mm_projector.ln_1."
"""A layer of the `cluster` projector that has weights and is never used."""
_COMPUTED = ("rotary_emb.inv_freq", "embeddings.position_ids")
"""Tensors that older versions of transformers saved and this one computes."""
_RENAMED = (
    ("model.mm_projector.0.", "model.multi_modal_projector.linear_1."),
    ("model.mm_projector.2.", "model.multi_modal_projector.linear_2."),
    ("model.mm_projector.", "model.multi_modal_projector."),
    ("model.vision_tower.vision_tower.vision_model.", "model.vision_tower."),
    ("model.", "model.language_model."),
)


def released_model(
    text: Mapping[str, Any],
    vision: Mapping[str, Any],
    state: Mapping[str, Tensor],
    *,
    vision_layer: int,
    prototypes: PrototypeOptions | None = None,
) -> Any:
    """`LlavaForConditionalGeneration` with the weights of a released checkpoint.

    `text` and `vision` are options of LlamaConfig and CLIPVisionConfig, `vision_layer` is the hidden state of the tower
    that goes into the projector, `prototypes` the form of a `cluster` projector. Raises ModelError if the weights do
    not fill the model.
    """
    import transformers

    config = transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**text),
        vision_config=transformers.CLIPVisionConfig(**vision),
        vision_feature_layer=vision_layer,
        vision_feature_select_strategy="default",
        projector_hidden_act="gelu",
    )
    model = transformers.LlavaForConditionalGeneration(config)
    if prototypes:
        width, out = int(config.vision_config.hidden_size), int(config.text_config.hidden_size)
        model.model.multi_modal_projector = PrototypeProjector(width, out, prototypes)
    named = {released_name(key): tensor for key, tensor in state.items() if not key.startswith(_UNUSED)}
    named = {key: tensor for key, tensor in named.items() if not key.endswith(_COMPUTED)}
    found = model.load_state_dict(named, strict=False)
    if found.missing_keys or found.unexpected_keys:
        raise ModelError(
            f"released weights do not fill the model; missing: {', '.join(found.missing_keys[:5]) or 'none'}; "
            f"unknown: {', '.join(found.unexpected_keys[:5]) or 'none'}"
        )
    return model.eval()


def released_name(key: str) -> str:
    """Name in LlavaForConditionalGeneration of a weight of the original format."""
    old, new = next(((old, new) for old, new in _RENAMED if key.startswith(old)), ("", ""))
    return new + key[len(old) :]
