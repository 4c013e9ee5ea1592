"""Answer tokens of a batch: their negative log-likelihood, and whether each is the model's first choice."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vsel_platform.models.vlm import ModelForward, RenderedRow

if TYPE_CHECKING:
    import torch

LOGIT_ROWS = 1024
"""Targets per piece of the logits: bounds the float32 logits to this many rows of the vocabulary."""


@dataclass(frozen=True, slots=True)
class TokenScores:
    """Targets of one row in order.

    nll: float64 [targets], negative log-likelihood [nat]. is_first: bool [targets], the target is the argmax of
    the logits. answer: int64 [targets], number of the assistant turn.
    """

    nll: NDArray[np.float64]
    is_first: NDArray[np.bool_]
    answer: NDArray[np.int64]


def target_nll(logits: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
    """-log softmax(logits)[target], float32 [n], of logits [n, vocabulary]; the log-softmax is float32."""
    import torch

    return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")


def score_batch(
    model: ModelForward,
    groups: Sequence[Sequence[RenderedRow]],
    images: "Sequence[Sequence[torch.Tensor]]",
) -> list[list[TokenScores]]:
    """Scores of the targets of every row of every group; every row must have at least one target.

    The rows of a group share images (projected features in order, per group in `images`) and, as far as they are
    equal, their beginning. Logits are made for the targets alone: hidden states are gathered before the output layer.
    """
    import torch

    with torch.inference_mode():
        states, targets = model.target_states(groups, images)
        nll = np.empty(len(targets), dtype=np.float64)
        is_first = np.empty(len(targets), dtype=np.bool_)
        for start in range(0, len(targets), LOGIT_ROWS):
            piece = slice(start, start + LOGIT_ROWS)
            logits = model.logits(states[piece])
            nll[piece] = target_nll(logits, targets[piece]).double().cpu().numpy()
            is_first[piece] = (logits.argmax(dim=-1) == targets[piece]).cpu().numpy()
    ends = np.cumsum([row.n_targets for rows in groups for row in rows])[:-1]
    pieces = zip(np.split(nll, ends), np.split(is_first, ends), strict=True)
    return [[TokenScores(*next(pieces), row.answer_index[row.answer_index >= 0]) for row in rows] for rows in groups]
