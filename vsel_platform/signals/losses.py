"""Answer loss of rows with and without the question or the image (PreSel's, specification A1.3, corrected).

loss(answers | image, questions) is condition `full`, loss(answers | image) is `no_question`, loss(answers | questions)
is `no_image`; all are over the same target tokens: every token of every answer, and the end token after it.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vsel_platform.identity import fingerprint
from vsel_platform.models.batching import BatchLimits
from vsel_platform.models.images import ContentFailure, ImageProvider
from vsel_platform.models.scoring import TokenScores
from vsel_platform.models.vlm import Condition, ConversationRow, VisionLanguageModel
from vsel_platform.signals.answer_scoring import RowScores, score_windows
from vsel_platform.signals.row_vectors import RowVectors, Vectors
from vsel_platform.signals.windows import WINDOW_ROWS, WindowOptions

SIGNAL = "losses"
CODE_VERSION = 2
CONDITIONS: tuple[Condition, ...] = ("full", "no_question")
ALL_CONDITIONS: tuple[Condition, ...] = ("full", "no_question", "no_image")


@dataclass(frozen=True, slots=True)
class LossRow:
    """A row to score: identity, turns `(role, text)`, image identities in the order of their tags."""

    sample_id: str
    turns: Sequence[tuple[str, str]]
    images: Sequence[str] = ()
    task: str = ""


@dataclass(frozen=True, slots=True)
class LossValue:
    """Loss of one row under one condition: sum [nat] and mean [nat/token] over `n_tokens` targets.

    `entropy_mean` [nat] and `el2n_mean` are means over the same tokens. All are None if the row could not be scored;
    the batch's failures say why. `n_cut` tokens were cut off because the row is longer than the model's limit.
    """

    sample_id: str
    condition: Condition
    loss_sum: float | None
    loss_mean: float | None
    n_tokens: int
    entropy_mean: float | None = None
    el2n_mean: float | None = None
    n_cut: int = 0


@dataclass(frozen=True, slots=True)
class LossBatch:
    """Values of consecutive rows, every condition of every row; the rows that have no value; vectors by row."""

    values: list[LossValue]
    failures: list[ContentFailure]
    vectors: dict[str, Vectors] = field(default_factory=dict)

    @property
    def n_cut_rows(self) -> int:
        """Rows of which tokens were cut off under at least one condition."""
        return len({value.sample_id for value in self.values if value.n_cut})


def losses_fingerprint(model: VisionLanguageModel, conditions: Sequence[Condition] = CONDITIONS) -> str:
    """Fingerprint of the signal: code version, model (weights, adapter, prompt, limits), conditions."""
    return fingerprint(signal=SIGNAL, code=CODE_VERSION, model=model.fingerprint, conditions=sorted(conditions))


def answer_losses(
    model: VisionLanguageModel,
    rows: Sequence[ConversationRow],
    images: ImageProvider,
    *,
    conditions: Sequence[Condition] = CONDITIONS,
    batch_tokens: int = 8192,
    window_rows: int = WINDOW_ROWS,
    decode_workers: int = 2,
    limits: BatchLimits | None = None,
    on_batch: Callable[[int], None] | None = None,
    vectors: RowVectors | None = None,
) -> Iterator[LossBatch]:
    """Losses of rows, one batch per window of `window_rows` consecutive rows.

    `images(image_id)` gives a picture or its preprocessed pixels; each distinct image of a window passes through
    the vision tower once. A row with a broken image, without an answer or with a non-finite loss has None for its
    losses and a failure; a row without images has no value under `no_image`. `on_batch` gets the number of rows done
    so far. To resume, pass the rows behind the last finished window: the values do not depend on the windows before.
    `vectors` are taken on the way, from the condition `full`. Raises OutOfMemoryError if one row does not fit into
    memory.
    """
    options = WindowOptions(batch_tokens, window_rows, decode_workers)
    done = 0
    for window in score_windows(
        model,
        rows,
        images,
        conditions=lambda row: applicable(conditions, row),
        options=options,
        render=lambda row, condition, shown: model.render(row.turns, len(row.images), condition, shown),
        limits=limits,
        vectors=vectors,
    ):
        batch = _loss_batch(window, conditions)
        done += len(window)
        yield batch
        if on_batch is not None:
            on_batch(done)


def applicable(conditions: Sequence[Condition], row: ConversationRow) -> list[Condition]:
    """Conditions that mean something for a row: one without images has no `no_image`."""
    return [condition for condition in conditions if row.images or condition != "no_image"]


def _loss_batch(window: Sequence[RowScores[ConversationRow]], conditions: Sequence[Condition]) -> LossBatch:
    values, failures = [], []
    for result in window:
        own = [_loss_value(result, condition) for condition in applicable(conditions, result.row)]
        values += own
        failure = result.failure
        if failure is None and any(value.loss_sum is None for value in own):
            bad = ", ".join(value.condition for value in own if value.loss_sum is None)
            failure = ContentFailure(result.row.sample_id, "non_finite_loss", f"the loss under {bad} is not finite")
        if failure is not None:
            failures.append(failure)
    return LossBatch(values, failures, {result.row.sample_id: result.vectors for result in window if result.vectors})


def _loss_value(result: RowScores[ConversationRow], condition: Condition) -> LossValue:
    scores = result.scores.get(condition)
    if scores is None:
        return LossValue(result.row.sample_id, condition, None, None, 0)
    total = loss_sum(scores)
    count = len(scores.nll)
    return LossValue(
        result.row.sample_id,
        condition,
        total,
        None if total is None else total / count,
        count,
        finite_mean(scores.entropy),
        finite_mean(scores.el2n),
        result.rendered[condition].n_cut,
    )


def finite_mean(values: NDArray[np.float64]) -> float | None:
    """Mean of float64 values; None if it is not finite."""
    mean = float(values.mean())
    return mean if math.isfinite(mean) else None


def loss_sum(scores: TokenScores) -> float | None:
    """Sum of the targets' negative log-likelihood in float64 [nat]; None if it is not finite."""
    total = float(scores.nll.sum())
    return total if math.isfinite(total) else None
