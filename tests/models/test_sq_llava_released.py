"""Weights under their released names."""

import pytest
import torch

from vsel_platform.errors import ModelError
from vsel_platform.models.prototype_extractor import released_options
from vsel_platform.models.prototypes import PrototypeProjector
from vsel_platform.models.sq_llava_released import released_model, released_name

TEXT = {"vocab_size": 20, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION = {"hidden_size": 4, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28,
          "patch_size": 14}  # fmt: skip


def original_name(key):
    """Name in the original format of a weight of LlavaForConditionalGeneration."""
    for new, old in (
        ("model.multi_modal_projector.linear_1.", "model.mm_projector.0."),
        ("model.multi_modal_projector.linear_2.", "model.mm_projector.2."),
        ("model.multi_modal_projector.", "model.mm_projector."),
        ("model.vision_tower.", "model.vision_tower.vision_tower.vision_model."),
        ("model.language_model.", "model."),
    ):
        if key.startswith(new):
            return old + key.removeprefix(new)
    return key


def empty(prototypes=None):
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    config = LlavaConfig(text_config=LlamaConfig(**TEXT), vision_config=CLIPVisionConfig(**VISION))
    model = LlavaForConditionalGeneration(config)
    if prototypes:
        model.model.multi_modal_projector = PrototypeProjector(4, 8, prototypes)
    return model


@pytest.mark.parametrize("prototypes", [None, released_options(3)])
def test_weights_reach_their_places_and_what_is_never_used_is_left_out(prototypes):
    source = empty(prototypes)
    state = {original_name(key): torch.randn_like(tensor) for key, tensor in source.state_dict().items()}
    extra = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2)}
    if prototypes:
        extra |= {"model.mm_projector.ln_1.weight": torch.ones(4)}
    model = released_model(TEXT, VISION, state | extra, vision_layer=-2, prototypes=prototypes)
    loaded = model.state_dict()
    assert all(torch.equal(loaded[released_name(key)], tensor) for key, tensor in state.items())
    assert model.config.vision_feature_layer == -2
    assert not model.training


def test_weights_that_do_not_fill_the_model_are_refused():
    state = {original_name(key): tensor for key, tensor in empty().state_dict().items()}
    missing = dict(state)
    del missing["model.mm_projector.0.bias"]
    with pytest.raises(ModelError, match=r"missing: model\.multi_modal_projector\.linear_1\.bias"):
        released_model(TEXT, VISION, missing, vision_layer=-2)
    with pytest.raises(ModelError, match=r"unknown: model\.language_model\.more"):
        released_model(TEXT, VISION, state | {"model.more": torch.ones(1)}, vision_layer=-2)
