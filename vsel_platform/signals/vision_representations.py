"""ScalSelect's vector of a row: what the instruction looks at (arXiv 2602.11636, section 3; specification B1, B2).

The image tokens that together receive a share (0.9) of the attention that the instruction's tokens pay to the image
in the first decoder layer are averaged, in the hidden states behind that layer. Nothing deeper runs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vsel_platform.errors import DataError
from vsel_platform.identity import fingerprint
from vsel_platform.models.batching import BatchLimits
from vsel_platform.models.images import ContentFailure, ImageProvider
from vsel_platform.models.vlm import (
    AttentionRows,
    ConversationRow,
    LayerStates,
    ModelForward,
    RenderedRow,
    VisionLanguageModel,
)
from vsel_platform.signals.attended_vision import attended_positions
from vsel_platform.signals.windows import RowWindow, WindowOptions, windows

if TYPE_CHECKING:
    import torch

SIGNAL = "vision_representations"
CODE_VERSION = 1
THRESHOLD = 0.9
Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Representation:
    """Vector float32 [model width] of one row; `n_attended` of its `n_vision` image tokens are in it."""

    sample_id: str
    vector: NDArray[np.float32]
    n_attended: int
    n_vision: int


@dataclass(frozen=True, slots=True)
class RepresentationBatch:
    """Representations of consecutive rows, and the rows that have none."""

    values: list[Representation]
    failures: list[ContentFailure]


def representations_fingerprint(model: VisionLanguageModel, threshold: float = THRESHOLD) -> str:
    """Fingerprint of the signal: code version, model, threshold."""
    return fingerprint(signal=SIGNAL, code=CODE_VERSION, model=model.fingerprint, threshold=threshold)


def vision_representations(
    model: VisionLanguageModel,
    rows: Sequence[ConversationRow],
    images: ImageProvider,
    *,
    threshold: float = THRESHOLD,
    options: WindowOptions | None = None,
    limits: BatchLimits | None = None,
) -> Iterator[RepresentationBatch]:
    """Representations of rows with images, one batch per window of consecutive rows.

    The instruction is the words of the user turns; a row whose user turns have none takes every token that is
    neither image nor answer. Rows without images, with broken images or without finite values are
    failures. Raises OutOfMemoryError if one row does not fit into memory.
    """
    import torch

    for window in windows(model, rows, images, options or WindowOptions(), limits):
        window.load_images([i for i, row in enumerate(window.rows) if row.images])
        rendered = _render(model, window)
        todo = [i for i in rendered if i not in window.failures]
        found: dict[int, Representation] = {}

        def run(
            part: Sequence[int], window: RowWindow[ConversationRow] = window, rendered: dict[int, LookingRow] = rendered
        ) -> list[tuple[NDArray[np.float32], int] | None]:
            own = [rendered[i] for i in part]
            shown = [window.features_of(i) for i in part]
            with torch.inference_mode():
                states = model.layer_states([r.row for r in own], shown, layers=[1], attention=looking(own))
                return attended_means(own, states, threshold)

        for part, values in window.run(todo, [len(rendered[i].row) for i in todo], run):
            for i, value in zip(part, values, strict=True):
                if value is None:
                    window.fail(
                        i, "non_finite_representation", "the model gives attention or states that are not finite"
                    )
                else:
                    found[i] = Representation(window.rows[i].sample_id, *value, len(rendered[i].vision))
        yield RepresentationBatch(
            [found[i] for i in sorted(found)], [window.failures[i] for i in sorted(window.failures)]
        )


@dataclass(frozen=True, slots=True)
class LookingRow:
    """A row, and the places of its instruction's words and of its image tokens, int64."""

    row: RenderedRow
    instruction: Places
    vision: Places

    @classmethod
    def of(cls, model: ModelForward, row: RenderedRow) -> "LookingRow":
        """The row with its places."""
        vision = model.image_places(row)
        return cls(row, instruction_places(row, vision) if len(vision) else vision, vision)


def looking(rows: Sequence[LookingRow]) -> AttentionRows:
    """The attention that the representations of rows are made of."""
    return AttentionRows([0], [row.instruction for row in rows], [row.vision for row in rows])


def _render(model: VisionLanguageModel, window: RowWindow[ConversationRow]) -> dict[int, LookingRow]:
    found: dict[int, LookingRow] = {}
    for i, row in enumerate(window.rows):
        if not row.images:
            window.fail(i, "no_image", "the row has no image, so nothing to look at")
        if i in window.failures:
            continue
        try:
            rendered = model.render(row.turns, len(row.images), shown=window.shown(i))
        except DataError as error:
            window.fail(i, "row_not_renderable", str(error))
            continue
        found[i] = LookingRow.of(model, rendered)
        if not len(found[i].vision):
            window.fail(i, "no_image_tokens", "the image lies behind the length limit (vlm.max_tokens)")
    return found


def instruction_places(row: RenderedRow, vision: Places) -> Places:
    """Tokens of the user's words behind the first image token (those before it see no image), int64.

    Without any: every token behind it that is neither image nor answer; without those: the last image token.
    """
    behind = np.arange(len(row)) > (vision[0] if len(vision) else -1)
    words = np.flatnonzero(behind & row.is_question) if row.is_question is not None else vision[:0]
    if len(words):
        return words
    behind[vision] = False
    others = np.flatnonzero(behind & (row.answer_index < 0))
    return others if len(others) else vision[-1:]


def attended_means(
    rows: Sequence[LookingRow], states: LayerStates, threshold: float
) -> list[tuple[NDArray[np.float32], int] | None]:
    """Of every row the mean of what it attends to and the number of image tokens in it, from its states after layer 1
    and its attention in the first; None if they are not finite, or without image tokens."""
    mass = states.mass[0].cpu().numpy()  # small; the hidden states stay where they are
    return [_attended(row, states.hidden[1][i], mass[i], threshold) for i, row in enumerate(rows)]


def _attended(
    ready: LookingRow, hidden: "torch.Tensor", mass: NDArray[np.float32], threshold: float
) -> tuple[NDArray[np.float32], int] | None:
    import torch

    own = mass[: len(ready.vision)]
    if not len(own) or not np.isfinite(own).all():
        return None
    chosen = ready.vision[attended_positions(own, threshold)]
    mean = hidden[torch.from_numpy(chosen).to(hidden.device)].float().mean(dim=0)
    vector = np.asarray(mean.cpu().numpy(), np.float32)
    return (vector, len(chosen)) if np.isfinite(vector).all() else None
