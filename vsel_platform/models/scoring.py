"""Answer tokens of a batch: their negative log-likelihood, and whether each is the model's first choice."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vsel_platform.models.vlm import LayerStates, ModelForward, RenderedRow, RowTaps

if TYPE_CHECKING:
    import torch

LOGIT_ROWS = 1024
"""Targets per piece of the logits: bounds the float32 logits to this many rows of the vocabulary."""


@dataclass(frozen=True, slots=True)
class TokenScores:
    """Targets of one row in order.

    nll: float64 [targets], negative log-likelihood [nat]. entropy: float64 [targets], of the prediction [nat].
    el2n: float64 [targets], |p - onehot(target)|_2 of the prediction p (EL2N, arXiv 2107.07075, per token).
    is_first: bool [targets], the target is the argmax of the logits. answer: int64 [targets], number of the
    assistant turn.
    """

    nll: NDArray[np.float64]
    entropy: NDArray[np.float64]
    el2n: NDArray[np.float64]
    is_first: NDArray[np.bool_]
    answer: NDArray[np.int64]


def target_nll(logits: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
    """-log softmax(logits)[target], float32 [n], of logits [n, vocabulary]; the log-softmax is float32."""
    import torch

    return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")


def prediction_scores(
    logits: "torch.Tensor", targets: "torch.Tensor"
) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]":
    """(nll, entropy, EL2N float64 [n]; whether the target comes first, bool [n]) of logits [n, vocabulary]."""
    import torch

    log_p = logits.float().log_softmax(dim=-1)
    target = log_p.gather(1, targets[:, None])[:, 0]
    p = log_p.exp()
    # A log-probability of -inf has no share in the entropy.
    entropy = -(p * log_p.clamp(min=torch.finfo(torch.float32).min)).sum(dim=-1)
    # exp - 1 keeps the digits of a target that is nearly certain.
    el2n = torch.linalg.vector_norm(p.scatter_(1, targets[:, None], target.expm1()[:, None]), dim=-1)
    first = logits.argmax(dim=-1) == targets
    return -target.double(), entropy.double(), el2n.double(), first


def score_batch(
    model: ModelForward,
    groups: Sequence[Sequence[RenderedRow]],
    images: "Sequence[Sequence[torch.Tensor]]",
) -> list[list[TokenScores]]:
    """Scores of the targets of every row of every group (`score_and_tap`)."""
    return score_and_tap(model, groups, images)[0]


def score_and_tap(
    model: ModelForward,
    groups: Sequence[Sequence[RenderedRow]],
    images: "Sequence[Sequence[torch.Tensor]]",
    taps: RowTaps | None = None,
) -> tuple[list[list[TokenScores]], LayerStates | None]:
    """Scores of the targets of every row of every group; every row must have at least one target.

    The rows of a group share images (projected features in order, per group in `images`) and, as far as they are
    equal, their beginning. Logits are made for the targets alone: hidden states are gathered before the output layer.
    What is tapped on the way comes beside.
    """
    import torch

    with torch.inference_mode():
        states, targets, tapped = model.target_states(groups, images, taps)
        found = [
            prediction_scores(model.logits(states[start : start + LOGIT_ROWS]), targets[start : start + LOGIT_ROWS])
            for start in range(0, len(targets), LOGIT_ROWS)
        ]
        columns = [torch.cat(column).cpu().numpy() for column in zip(*found, strict=True)]
    ends = np.cumsum([row.n_targets for rows in groups for row in rows])[:-1]
    pieces = zip(*(np.split(column, ends) for column in columns), strict=True)
    return [[_scores_of(row, *next(pieces)) for row in rows] for rows in groups], tapped


def _scores_of(
    row: RenderedRow,
    nll: NDArray[np.float64],
    entropy: NDArray[np.float64],
    el2n: NDArray[np.float64],
    is_first: NDArray[np.bool_],
) -> TokenScores:
    return TokenScores(nll, entropy, el2n, is_first, row.answer_index[row.answer_index >= 0])
