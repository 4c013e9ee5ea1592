"""A recorded tiny model rebuilt from its weights, and one pass through it with gradients."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vsel_platform.models.llava_forward import LlavaForward
from vsel_platform.models.prototype_extractor import released_options
from vsel_platform.models.sq_llava_released import released_model, released_name
from vsel_platform.training.splice_released import mean_loss, splice, splice_sq


@dataclass
class Forward:
    """What one pass gives; gradients by the name of the weight in the released model."""

    image_features: torch.Tensor
    logits: torch.Tensor
    attention_mask: torch.Tensor
    loss: float
    gradients: dict[str, torch.Tensor]
    tower_has_no_gradients: bool


class PixelTower(LlavaForward):
    """The platform's forward pass of a model whose pictures are pixels already."""

    def _count_image_tokens(self) -> int:
        vision = self.model.config.vision_config
        return int((vision.image_size // vision.patch_size) ** 2)


def forward_of(folder: Path) -> tuple[Forward, dict[str, torch.Tensor], dict[str, Any]]:
    """(the pass, recorded arrays, configuration) of a `tiny_model_forward` folder."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    with np.load(folder / "fixture.npz") as file:
        recorded = {key: torch.from_numpy(np.asarray(file[key])) for key in file.files}
    state = {key[2:]: tensor for key, tensor in recorded.items() if key.startswith("w.")}
    form = re.fullmatch(r"cluster\(\d+, *\d+, *num_centers=(\d+), *iters=(\d+)\)", config["projector"])
    prototypes = released_options(int(form[1]), int(form[2])) if form else None
    model = released_model(
        config["llama"], config["clip"], state, vision_layer=config["select_layer"], prototypes=prototypes
    )
    assert config["select_feature"] == "patch"
    through = PixelTower(model, None, name="tiny", fingerprint="tiny", device="cpu", image_token_id=-200)
    features = through.project(through.tower_features(recorded["pixel_values"].numpy()))
    arguments = (recorded["input_ids"], recorded["labels"], recorded["attention_mask"])
    spliced = (splice_sq if form else splice)(*arguments, model.get_input_embeddings(), features)
    states = through.through({"inputs_embeds": spliced.embeddings, "attention_mask": spliced.attention_mask})
    logits = model.lm_head(states)
    loss = mean_loss(logits, spliced.labels)
    loss.backward()
    weights = dict(model.named_parameters())
    names = {name: released_name(name) for name in state}
    gradients = {name: weights[own].grad for name, own in names.items() if own in weights}
    tower = [gradient for name, gradient in gradients.items() if "vision_tower" in name]
    found = Forward(
        features.detach(),
        logits.detach(),
        spliced.attention_mask,
        float(loss.detach()),
        gradients,
        bool(tower) and all(gradient is None for gradient in tower),
    )
    return found, recorded, config
