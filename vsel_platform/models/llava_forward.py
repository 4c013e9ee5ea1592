"""The vision side of a LLaVA model, run apart, so that image features can be shared between rows and conditions."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vsel_platform.errors import ModelError
from vsel_platform.models.decoder_forward import DecoderForward, ModelParts
from vsel_platform.models.images import Pixels, Preprocessed

if TYPE_CHECKING:
    import torch
    from PIL import Image


class LlavaForward(DecoderForward):
    """A `LlavaForConditionalGeneration` behind `models.vlm.ModelForward`: every image has `image_tokens` tokens."""

    def __init__(
        self, model: Any, image_processor: Any, *, name: str, fingerprint: str, device: str, image_token_id: int
    ) -> None:
        super().__init__(model, name=name, fingerprint=fingerprint, device=device, image_token_id=image_token_id)
        self._image_processor = image_processor
        self.image_tokens = self._count_image_tokens()

    @property
    def parts(self) -> ModelParts:
        """Where language model, tower and projector lie."""
        config = self.model.config
        chosen = config.vision_feature_layer
        n_layers = int(config.vision_config.num_hidden_layers)
        # hidden_states has the embeddings before the first layer.
        used = [layer if layer >= 0 else n_layers + 1 + layer for layer in _as_list(chosen)]
        return ModelParts("model.language_model", "model.vision_tower", ("model.multi_modal_projector",), max(used))

    def preprocess(self, image: "Image.Image") -> Pixels:
        """Pixels float32 [3, height, width] of one picture: RGB, then the checkpoint's image processor."""
        pixels = self._image_processor(
            images=image.convert("RGB"), return_tensors="np", input_data_format="channels_last"
        )["pixel_values"][0]
        return np.asarray(pixels, dtype=np.float32)

    def features(self, images: Sequence[Preprocessed]) -> "Sequence[torch.Tensor]":
        """Features [image tokens, tower width] of pictures. Raises ModelError if they differ in size."""
        pixels = [image for image in images if isinstance(image, np.ndarray)]
        shapes = {image.shape for image in pixels}
        if len(shapes) > 1:
            raise ModelError(
                f"the image processor gives pictures of different sizes ({', '.join(map(str, sorted(shapes)))}); "
                "this model needs one size (do_center_crop or do_pad in preprocessor_config.json)"
            )
        return list(self.tower_features(np.stack(pixels))) if pixels else []

    def tower_features(self, pixels: NDArray[np.float32]) -> "torch.Tensor":
        """Selected layer(s) of the vision tower, [n, image tokens, tower width]."""
        import torch

        tower, config = self.model.model.vision_tower, self.model.config
        with torch.set_grad_enabled(self.tower_gradients and torch.is_grad_enabled()):
            batch = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device, tower.dtype)
            states = tower(batch, output_hidden_states=True, return_dict=True).hidden_states
            layers = config.vision_feature_layer
            chosen = [states[layer] for layer in _as_list(layers)]
            if config.vision_feature_select_strategy == "default":
                chosen = [state[:, 1:] for state in chosen]
            return torch.cat(chosen, dim=-1)

    def project(self, features: "torch.Tensor") -> "torch.Tensor":
        """Projector in the dtype of its weights, result in the dtype of the language model."""
        projector = self.model.model.multi_modal_projector
        weight = next(iter(projector.parameters()))
        projected: torch.Tensor = projector(features.to(self.device, weight.dtype))
        return projected.to(self.model.dtype)

    def _count_image_tokens(self) -> int:
        from PIL import Image

        return int(self.tower_features(self.preprocess(Image.new("RGB", (64, 64)))[None]).shape[1])


def _as_list(layers: int | Sequence[int]) -> list[int]:
    return [layers] if isinstance(layers, int) else list(layers)
