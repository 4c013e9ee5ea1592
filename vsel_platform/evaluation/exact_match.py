"""Exact match and loss of answers, per task, under teacher forcing.

An answer counts as exact if every one of its tokens, the end token included, is the model's first choice given the
right tokens before it. That is the case exactly when greedy decoding produces the answer.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from vsel_platform.errors import DataError
from vsel_platform.models.batching import BatchLimits
from vsel_platform.models.images import ImageProvider
from vsel_platform.models.scoring import TokenScores
from vsel_platform.models.vlm import ConversationRow, VisionLanguageModel
from vsel_platform.signals.answer_scoring import score_windows
from vsel_platform.signals.windows import WindowOptions

logger = logging.getLogger(__name__)


class TaskRow(ConversationRow, Protocol):
    """A row with its task."""

    @property
    def task(self) -> str:
        """Name of the task."""


@dataclass(frozen=True, slots=True)
class TaskScore:
    """Scores of one task: answers, share of exact ones, mean loss over their tokens [nat/token].

    `n_failed` rows could not be evaluated (broken image, no answer) and count in nothing else.
    """

    task: str
    n_answers: int
    exact_match: float
    loss_mean: float
    n_failed: int = 0


@dataclass(slots=True)
class _Tally:
    n_answers: int = 0
    n_exact: int = 0
    n_tokens: int = 0
    loss_sum: float = 0.0
    failures: list[str] = field(default_factory=list)

    def add(self, scores: TokenScores) -> None:
        for answer in np.unique(scores.answer):
            self.n_answers += 1
            self.n_exact += bool(scores.is_first[scores.answer == answer].all())
        self.n_tokens += len(scores.nll)
        self.loss_sum += float(scores.nll.sum())


def evaluate(
    model: VisionLanguageModel,
    rows: Sequence[TaskRow],
    images: ImageProvider,
    *,
    batch_tokens: int = 8192,
    limits: BatchLimits | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> list[TaskScore]:
    """Scores per task, sorted by task.

    A task of which no row can be evaluated is left out with a logged warning. `on_batch` gets the number of rows
    done so far. Raises DataError if nothing can be evaluated.
    """
    tallies: dict[str, _Tally] = {}
    done = 0
    for window in score_windows(
        model,
        rows,
        images,
        conditions=lambda row: ("full",),
        options=WindowOptions(batch_tokens),
        render=lambda row, condition, shown: model.render(row.turns, len(row.images), condition, shown),
        limits=limits,
    ):
        for result in window:
            tally = tallies.setdefault(result.row.task, _Tally())
            if result.failure is not None:
                tally.failures.append(f"{result.failure.content_id}: {result.failure.detail}")
            else:
                tally.add(result.scores["full"])
        done += len(window)
        if on_batch is not None:
            on_batch(done)
    return _scores(tallies)


def _scores(tallies: dict[str, _Tally]) -> list[TaskScore]:
    scores = []
    for task, tally in sorted(tallies.items()):
        if not tally.n_answers:
            logger.warning("task %r: no row can be evaluated; the first failure: %s", task, tally.failures[0])
            continue
        scores.append(
            TaskScore(
                task,
                tally.n_answers,
                tally.n_exact / tally.n_answers,
                tally.loss_sum / tally.n_tokens,
                len(tally.failures),
            )
        )
    if not scores:
        first = next((tally.failures[0] for tally in tallies.values()), "there are no rows")
        raise DataError(f"evaluation: no row can be evaluated; the first failure: {first}")
    return scores
