"""The parts of a LLaVA model, run apart, so that image features can be shared between rows and conditions."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vsel_platform.models.vlm import RenderedRow

if TYPE_CHECKING:
    import torch
    from PIL import Image


class LlavaForward:
    """A `LlavaForConditionalGeneration` behind `models.vlm.ModelForward`.

    `image_token_id` marks image positions in token ids; it need not be in the vocabulary. `fingerprint` identifies
    the model with everything that changes its results.
    """

    def __init__(
        self, model: Any, image_processor: Any, *, name: str, fingerprint: str, device: str, image_token_id: int
    ) -> None:
        self.model = model.eval()
        self.name = name
        self.fingerprint = fingerprint
        self.device = device
        self._image_processor = image_processor
        self._image_token_id = image_token_id
        self.image_tokens = self._count_image_tokens()

    def preprocess(self, image: "Image.Image") -> NDArray[np.float32]:
        """Pixels float32 [3, height, width] of one picture: RGB, then the checkpoint's image processor."""
        pixels = self._image_processor(
            images=image.convert("RGB"), return_tensors="np", input_data_format="channels_last"
        )["pixel_values"][0]
        return np.asarray(pixels, dtype=np.float32)

    def tower_features(self, pixels: NDArray[np.float32]) -> "torch.Tensor":
        """Selected layer(s) of the vision tower, [n, image tokens, tower width], no gradient."""
        import torch

        tower, config = self.model.model.vision_tower, self.model.config
        with torch.no_grad():
            batch = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device, tower.dtype)
            states = tower(batch, output_hidden_states=True, return_dict=True).hidden_states
            layers = config.vision_feature_layer
            chosen = [states[layer] for layer in ([layers] if isinstance(layers, int) else layers)]
            if config.vision_feature_select_strategy == "default":
                chosen = [state[:, 1:] for state in chosen]
            return torch.cat(chosen, dim=-1)

    def project(self, features: "torch.Tensor") -> "torch.Tensor":
        """Projector in the dtype of its weights, result in the dtype of the language model."""
        projector = self.model.model.multi_modal_projector
        weight = next(iter(projector.parameters()))
        projected: torch.Tensor = projector(features.to(self.device, weight.dtype))
        return projected.to(self.model.dtype)

    def target_states(
        self, rows: Sequence[RenderedRow], images: Sequence[Sequence["torch.Tensor"]]
    ) -> "tuple[torch.Tensor, torch.Tensor]":
        """Hidden states [targets, model width] before each target, and the targets int64 [targets], row by row.

        Rows are padded on the right. No attention mask is needed: attention is causal, so no token of a row sees
        the padding behind it.
        """
        import torch

        ids = np.zeros((len(rows), max(len(row) for row in rows)), dtype=np.int64)
        targets = np.zeros(ids.shape, dtype=bool)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row.input_ids
            targets[i, : len(row)] = row.answer_index >= 0
        token_ids = torch.from_numpy(ids).to(self.device)
        embeddings = self._embed(token_ids, rows, images)
        hidden = self.model.model.language_model(inputs_embeds=embeddings, use_cache=False).last_hidden_state
        row_of, position = (torch.from_numpy(axis).to(self.device) for axis in np.nonzero(targets))
        return hidden[row_of, position - 1], token_ids[row_of, position]

    def logits(self, states: "torch.Tensor") -> "torch.Tensor":
        """Logits [n, vocabulary] in the model's dtype."""
        logits: torch.Tensor = self.model.lm_head(states)
        return logits

    def _embed(
        self,
        token_ids: "torch.Tensor",
        rows: Sequence[RenderedRow],
        images: Sequence[Sequence["torch.Tensor"]],
    ) -> "torch.Tensor":
        import torch

        is_image = token_ids == self._image_token_id
        embeddings: torch.Tensor = self.model.get_input_embeddings()(token_ids.masked_fill(is_image, 0))
        features = []
        for row, own in zip(rows, images, strict=True):
            wanted = int(np.count_nonzero(row.input_ids == self._image_token_id))
            if wanted:  # fewer than all features when the row was cut inside an image
                features.append(torch.cat(list(own))[:wanted])
        if not features:
            return embeddings
        embeddings = embeddings.clone()
        embeddings[is_image] = torch.cat(features).to(embeddings.dtype)
        return embeddings

    def _count_image_tokens(self) -> int:
        from PIL import Image

        return int(self.tower_features(self.preprocess(Image.new("RGB", (64, 64)))[None]).shape[1])
