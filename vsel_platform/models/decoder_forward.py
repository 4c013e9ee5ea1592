"""A model's decoder and output layer, given projected image features: the same for all families."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vsel_platform.models.decoder import decoder_states, observed
from vsel_platform.models.packing import PackedRows, aligned, attention_mask, pack
from vsel_platform.models.taps import tap_recorder, tapped_states
from vsel_platform.models.vlm import AttentionRows, LayerStates, RenderedRow, RowTaps, TargetStates

if TYPE_CHECKING:
    import torch


LONG_PREFIX = 256
"""Shared beginning [tokens] from which on it passes through the decoder by itself, before the branches."""


@dataclass(frozen=True, slots=True)
class ModelParts:
    """Where the parts of a model lie: paths of its modules. `tower_layers`: how many of the tower's layers its features
    pass through; deeper ones can get no gradient."""

    language: str
    tower: str
    projectors: tuple[str, ...]
    tower_layers: int


class DecoderForward:
    """The decoder's side of `models.vlm.ModelForward`, for a `...ForConditionalGeneration` of transformers.

    `image_token_id` marks image positions in token ids; it need not be in the vocabulary. `fingerprint` identifies
    the model with everything that changes its results.
    """

    tower_gradients = False
    """Whether the vision tower's features keep their graph: training that reaches into the tower."""

    def __init__(self, model: Any, *, name: str, fingerprint: str, device: str, image_token_id: int) -> None:
        self.model = model.eval()
        self.name = name
        self.fingerprint = fingerprint
        self.device = device
        self._image_token_id = image_token_id

    def row_features(self, images: "Sequence[torch.Tensor]") -> "list[torch.Tensor]":
        """The same: an image has the same tokens in every row."""
        return list(images)

    def row_tokens(self, counts: Sequence[int]) -> list[int]:
        """How many tokens images with features of so many have in a row together: the lengths of `row_features`."""
        return list(counts)

    def target_states(
        self,
        groups: Sequence[Sequence[RenderedRow]],
        images: Sequence[Sequence["torch.Tensor"]],
        taps: RowTaps | None = None,
    ) -> TargetStates:
        """Hidden states [targets, model width] before each target, the targets int64 [targets], and what is tapped.

        Groups of rows are packed (`models.packing`) and padded on the right. Without branches no attention mask is
        needed: attention is causal, so no token of a row sees the padding behind it.
        """
        batch, inputs, prefix = self.packed_inputs(groups, images)
        recorder = tap_recorder(batch, taps, self.device) if taps and taps.attention else None
        with observed(self.decoder, taps.layers if taps else (), recorder) as kept:
            states = self.through(inputs, prefix)
        row_of = np.repeat(np.arange(len(batch)), [len(packed.targets) for packed in batch])
        before = np.concatenate([packed.before for packed in batch])
        targets = np.concatenate([packed.input_ids[packed.targets] for packed in batch])
        found = states[self._tensor(row_of), self._tensor(before)]
        tapped = tapped_states(batch, taps, kept, recorder) if taps else None
        return TargetStates(found, self._tensor(targets), tapped)

    def packed_inputs(
        self, groups: Sequence[Sequence[RenderedRow]], images: Sequence[Sequence["torch.Tensor"]]
    ) -> "tuple[list[PackedRows], dict[str, Any], int]":
        """Groups of rows that share a beginning and their images, packed; the decoder's arguments for them; and how
        many tokens of them can pass first, because nothing but their past is seen from there (0: all together)."""
        import torch

        batch, prefix = [pack(rows, self._image_token_id) for rows in groups], 0
        has_branches = any(packed.branch.any() for packed in batch)
        if has_branches:
            wide, width = aligned(batch)
            if width >= LONG_PREFIX:
                batch, prefix = wide, width
        length = max(len(packed) for packed in batch)
        inputs = self._inputs(batch, images, length)
        if has_branches:
            hidden = torch.from_numpy(~attention_mask(batch, length, prefix)).to(self.device)
            zeros = torch.zeros(hidden.shape, dtype=self.model.dtype, device=self.device)
            inputs["attention_mask"] = zeros.masked_fill_(hidden, torch.finfo(self.model.dtype).min)[:, None]
        return batch, inputs, prefix

    def through(self, inputs: "dict[str, Any]", prefix: int = 0, cache: Any = None) -> "torch.Tensor":
        """Last hidden states [groups, tokens, model width] of what `packed_inputs` gives; keys and values go to
        `cache`."""
        import torch
        from transformers import DynamicCache

        if not prefix:
            states: torch.Tensor = self.decoder(
                use_cache=cache is not None, past_key_values=cache, **inputs
            ).last_hidden_state
            return states
        # Causal attention without a mask costs half of that with one, and a long prefix is most of a group.
        cache = DynamicCache() if cache is None else cache
        parts = self._parts(inputs, prefix)
        return torch.cat(
            [self.decoder(use_cache=True, past_key_values=cache, **part).last_hidden_state for part in parts], dim=1
        )

    def _parts(self, inputs: "dict[str, Any]", prefix: int) -> "tuple[dict[str, Any], dict[str, Any]]":
        """Arguments for the first `prefix` tokens, and for those behind them."""
        embeddings, positions = inputs["inputs_embeds"], inputs["position_ids"]
        return (
            {"inputs_embeds": embeddings[:, :prefix], "position_ids": positions[..., :prefix]},
            {
                "inputs_embeds": embeddings[:, prefix:],
                "position_ids": positions[..., prefix:],
                "attention_mask": inputs["attention_mask"],
            },
        )

    @property
    def decoder(self) -> Any:
        """The language model without its output layer."""
        return self.model.model.language_model

    @property
    def n_layers(self) -> int:
        """Number of decoder layers."""
        return len(self.decoder.layers)

    def decoder_inputs(
        self, rows: Sequence[RenderedRow], images: Sequence[Sequence["torch.Tensor"]]
    ) -> "dict[str, Any]":
        """Arguments of the decoder for rows, padded on the right: `inputs_embeds` [rows, tokens, model width], and
        what else the model needs."""
        batch = [pack([row], self._image_token_id) for row in rows]
        return self._inputs(batch, images, max(len(packed) for packed in batch))

    def following_positions(self, groups: Sequence[Sequence[RenderedRow]]) -> "torch.Tensor":
        """Position int64 [groups, rows] of the token behind each row, or [3, groups, rows] for models that count so;
        padded with 0."""
        behind = np.zeros((len(groups), max(map(len, groups))), np.int64)
        for i, rows in enumerate(groups):
            ends = [len(row) if row.positions is None else int(row.positions.max()) + 1 for row in rows]
            behind[i, : len(rows)] = ends
        positions = self._tensor(behind)
        return positions if groups[0][0].positions is None else positions.expand(3, -1, -1)

    def token_embeddings(self, ids: "torch.Tensor") -> "torch.Tensor":
        """Embeddings [n, model width] of token ids [n]."""
        embeddings: torch.Tensor = self.model.get_input_embeddings()(ids)
        return embeddings

    def layer_states(
        self,
        rows: Sequence[RenderedRow],
        images: Sequence[Sequence["torch.Tensor"]],
        *,
        layers: Sequence[int],
        attention: AttentionRows | None = None,
    ) -> LayerStates:
        """Hidden states after decoder layers (from 1) and attention of some tokens; deeper layers do not run."""
        recorder = attention.recorder(self.device) if attention else None
        states = decoder_states(self.decoder, self.decoder_inputs(rows, images), layers=layers, recorder=recorder)
        return LayerStates(states, recorder.mass if recorder else {})

    def image_places(self, row: RenderedRow) -> NDArray[np.int64]:
        """Places of the image tokens in a row, int64 [n], in order."""
        return np.flatnonzero(row.input_ids == self._image_token_id)

    def logits(self, states: "torch.Tensor") -> "torch.Tensor":
        """Logits [n, vocabulary] in the model's dtype."""
        logits: torch.Tensor = self.model.lm_head(states)
        return logits

    def _inputs(
        self, batch: Sequence[PackedRows], images: Sequence[Sequence["torch.Tensor"]], length: int
    ) -> "dict[str, Any]":
        """Arguments of the decoder: token embeddings [rows, length, width] with image tokens replaced by their
        features, and positions where they are not 0, 1, 2 and so on."""
        import torch

        ids = self._tensor(_padded([packed.input_ids for packed in batch], length))
        is_image = self._tensor(_padded([packed.feature + 1 for packed in batch], length)) > 0
        embeddings: torch.Tensor = self.model.get_input_embeddings()(ids.masked_fill(is_image, 0))
        inputs: dict[str, Any] = {"inputs_embeds": embeddings}
        if any(packed.branch.any() or packed.positions.ndim > 1 for packed in batch):
            inputs["position_ids"] = self._tensor(_padded([packed.positions for packed in batch], length))
        features = [
            torch.cat(list(own))[self._tensor(packed.feature[packed.feature >= 0])]
            for packed, own in zip(batch, images, strict=True)
            if len(own)
        ]
        return inputs | self._with_features(embeddings, is_image, torch.cat(features)) if features else inputs

    def _with_features(
        self, embeddings: "torch.Tensor", is_image: "torch.Tensor", features: "torch.Tensor"
    ) -> "dict[str, Any]":
        """Arguments of the decoder in which image tokens [rows, length] have their features [image tokens, width]."""
        embeddings = embeddings.clone()
        embeddings[is_image] = features.to(embeddings.dtype)
        return {"inputs_embeds": embeddings}

    def _tensor(self, values: NDArray[np.int64]) -> "torch.Tensor":
        import torch

        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device)


def _padded(rows: Sequence[NDArray[np.int64]], length: int) -> NDArray[np.int64]:
    """Rows [..., n] as one array [..., rows, length], padded with 0 behind."""
    padded = np.zeros((*rows[0].shape[:-1], len(rows), length), dtype=np.int64)
    for i, row in enumerate(rows):
        padded[..., i, : row.shape[-1]] = row
    return padded
