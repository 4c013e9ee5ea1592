"""Vectors of rows that a pass over the whole decoder gives besides what it is made for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vsel_platform.models.vlm import LayerStates, ModelForward, RenderedRow, RowTaps
from vsel_platform.signals import hidden_states, vision_representations
from vsel_platform.signals.vision_representations import LookingRow, attended_means, looking

Vectors = dict[str, NDArray[np.float32]]
"""By signal: `hidden_states` float32 [2 x layers x model width], `vision_representations` float32 [model width]."""


@dataclass(frozen=True, slots=True)
class RowVectors:
    """Which vectors to take: pooled hidden states of layers (none: the middle one), ScalSelect's for a share of the
    attention; None: not these."""

    hidden_layers: Sequence[int] | None = None
    attention_share: float | None = None

    def taps(self, model: ModelForward, rows: Mapping[tuple[int, int], RenderedRow]) -> RowTaps:
        """What has to be kept of the rows, by (group, row of the group)."""
        layers = set(self._layers(model))
        attention = None
        if self.attention_share is not None:
            layers.add(1)
            attention = looking([LookingRow.of(model, row) for row in rows.values()])
        return RowTaps(list(rows), sorted(layers), attention)

    def of(self, model: ModelForward, rows: Sequence[RenderedRow], states: LayerStates) -> list[Vectors]:
        """Vectors of the tapped rows. What a row has not, or not finite, is left out:
        the signal's own pass says why."""
        found: list[Vectors] = [{} for _ in rows]
        layers = self._layers(model)
        if layers:
            for i, pooled in enumerate(hidden_states.pooled_vectors(model, rows, states.hidden, layers)):
                if hidden_states.has_text(model, rows[i]) and np.isfinite(pooled).all():
                    found[i][hidden_states.SIGNAL] = pooled
        if self.attention_share is not None:
            ready = [LookingRow.of(model, row) for row in rows]
            for i, value in enumerate(attended_means(ready, states, self.attention_share)):
                if value is not None:
                    found[i][vision_representations.SIGNAL] = value[0]
        return found

    def _layers(self, model: ModelForward) -> list[int]:
        return hidden_states.chosen_layers(model, self.hidden_layers) if self.hidden_layers is not None else []
