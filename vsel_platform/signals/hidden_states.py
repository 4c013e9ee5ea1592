"""Pooled hidden states of a row at chosen decoder layers: what methods cluster or decorrelate (COINCIDE, PRISM).

At each layer the states of the image tokens and those of the text tokens are averaged apart, each mean is divided by
its length, and all stand side by side (after COINCIDE, arXiv 2406.10995, section 3.1, which pools the outputs of the
attention blocks of a small model). Nothing behind the deepest chosen layer runs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vsel_platform.errors import ConfigError, DataError
from vsel_platform.identity import fingerprint
from vsel_platform.models.batching import BatchLimits
from vsel_platform.models.images import ContentFailure, ImageProvider
from vsel_platform.models.vlm import ConversationRow, ModelForward, RenderedRow, VisionLanguageModel
from vsel_platform.signals.windows import RowWindow, WindowOptions, windows

if TYPE_CHECKING:
    import torch

SIGNAL = "hidden_states"
CODE_VERSION = 1


@dataclass(frozen=True, slots=True)
class PooledStates:
    """Vector float32 [2 x layers x model width] of one row: per layer the image part, then the text part. The image
    part of a row without an image is zero."""

    sample_id: str
    vector: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PooledBatch:
    """Pooled states of consecutive rows, and the rows that have none."""

    values: list[PooledStates]
    failures: list[ContentFailure]


def hidden_states_fingerprint(model: VisionLanguageModel, layers: Sequence[int]) -> str:
    """Fingerprint of the signal: code version, model, layers."""
    return fingerprint(signal=SIGNAL, code=CODE_VERSION, model=model.fingerprint, layers=list(layers))


def chosen_layers(model: ModelForward, layers: Sequence[int]) -> list[int]:
    """The layers, numbered from 1; none: the middle one. Raises ConfigError for one that the model has not."""
    wrong = [layer for layer in layers if layer > model.n_layers]
    if wrong:
        raise ConfigError(f"signals.hidden_layers: {wrong[0]} is asked for, but {model.name} has {model.n_layers}")
    return sorted(set(layers)) or [(model.n_layers + 1) // 2]


def pooled_hidden_states(
    model: VisionLanguageModel,
    rows: Sequence[ConversationRow],
    images: ImageProvider,
    *,
    layers: Sequence[int] = (),
    options: WindowOptions | None = None,
    limits: BatchLimits | None = None,
) -> Iterator[PooledBatch]:
    """Pooled states of rows, one batch per window of consecutive rows.

    Rows with broken images, without tokens of text or without finite states are failures. Raises ConfigError for a
    layer that the model has not, OutOfMemoryError if one row does not fit into memory.
    """
    import torch

    wanted = chosen_layers(model, layers)
    for window in windows(model, rows, images, options or WindowOptions(), limits):
        window.load_images([i for i, row in enumerate(window.rows) if row.images])
        rendered = _render(model, window)
        found: dict[int, PooledStates] = {}

        def run(
            part: Sequence[int],
            window: RowWindow[ConversationRow] = window,
            rendered: dict[int, RenderedRow] = rendered,
        ) -> list[NDArray[np.float32]]:
            own = [rendered[i] for i in part]
            with torch.inference_mode():
                states = model.layer_states(own, [window.features_of(i) for i in part], layers=wanted)
            return pooled_vectors(model, own, states.hidden, wanted)

        todo = list(rendered)
        for part, values in window.run(todo, [len(rendered[i]) for i in todo], run):
            for i, vector in zip(part, values, strict=True):
                if np.isfinite(vector).all():
                    found[i] = PooledStates(window.rows[i].sample_id, vector)
                else:
                    window.fail(i, "non_finite_states", "the model gives hidden states that are not finite")
        yield PooledBatch([found[i] for i in sorted(found)], [window.failures[i] for i in sorted(window.failures)])


def has_text(model: ModelForward, row: RenderedRow) -> bool:
    """Whether a token of the row is no image token."""
    return len(model.image_places(row)) < len(row)


def _render(model: VisionLanguageModel, window: RowWindow[ConversationRow]) -> dict[int, RenderedRow]:
    found: dict[int, RenderedRow] = {}
    for i, row in enumerate(window.rows):
        if i in window.failures:
            continue
        try:
            rendered = model.render(row.turns, len(row.images), shown=window.shown(i))
        except DataError as error:
            window.fail(i, "row_not_renderable", str(error))
            continue
        if not has_text(model, rendered):
            window.fail(i, "no_text_tokens", "no token of the text lies within the length limit (vlm.max_tokens)")
        else:
            found[i] = rendered
    return found


def pooled_vectors(
    model: ModelForward, rows: Sequence[RenderedRow], hidden: "Mapping[int, torch.Tensor]", layers: Sequence[int]
) -> list[NDArray[np.float32]]:
    """Vectors of a batch of rows, from their hidden states [rows, tokens, width] by layer."""
    import torch

    length = max(len(row) for row in rows)
    weights = np.zeros((len(rows), 2, length), np.float32)
    for i, row in enumerate(rows):
        is_image = np.zeros(len(row), bool)
        is_image[model.image_places(row)] = True
        for part, chosen in enumerate((is_image, ~is_image)):
            weights[i, part, : len(row)] = chosen / max(1, chosen.sum())
    with torch.inference_mode():
        mean = torch.from_numpy(weights).to(model.device)
        # Padding has weight 0; its states are finite, because causal tokens see themselves.
        pooled = torch.cat([torch.nn.functional.normalize(mean @ hidden[layer].float(), dim=-1) for layer in layers], 1)
        return list(np.asarray(pooled.flatten(1).cpu().numpy(), np.float32))
