"""Greedy answers to questions, batched: what a kill leaves is whole windows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vsel_platform.evaluation.benchmark import Question
from vsel_platform.evaluation.window_prompts import Generated, Turns, WindowPrompt, generate_texts, rendered
from vsel_platform.models.batching import BatchLimits
from vsel_platform.models.images import ContentFailure, ImageProvider
from vsel_platform.models.scoring import score_batch
from vsel_platform.models.vlm import RenderedRow, VisionLanguageModel
from vsel_platform.signals.windows import RowWindow, WindowOptions, windows

QUESTION_TOKENS = 64
"""Tokens of a question's text in `rows_of_a_batch`."""
IMAGE_TOKENS = 1024
"""The same of an image, where they differ from one to the next."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model answered. text: None if it could not be asked (`failure` says why). n_tokens: generated, the end
    token included. loss_sum: of the right answer's tokens under teacher forcing [nat], n_target_tokens of them; None
    where there is not exactly one. trace: JSON of how self-questioning came to it."""

    question_id: str
    text: str | None
    n_tokens: int
    loss_sum: float | None = None
    n_target_tokens: int = 0
    failure: str | None = None
    trace: str | None = None


@dataclass(frozen=True, slots=True)
class QuestionRow:
    """A question as a row for a model."""

    sample_id: str
    turns: tuple[tuple[str, str], ...]
    images: tuple[str, ...]
    right: str | None = None


def question_row(question: Question, *, losses: bool) -> QuestionRow:
    """The row of a question, with its right answer if its loss is wanted and there is exactly one."""
    right = question.answers[0] if losses and len(question.answers) == 1 else None
    return QuestionRow(question.question_id, question.turns, question.images, right)


def rows_of_a_batch(model: VisionLanguageModel, batch_tokens: int, max_new_tokens: int) -> int:
    """About how many questions with an image fill a batch: what is kept together, and lost together by a kill."""
    image_tokens = int(getattr(model, "image_tokens", IMAGE_TOKENS))
    return max(1, batch_tokens // (image_tokens + QUESTION_TOKENS + max_new_tokens))


def answer_questions(
    model: VisionLanguageModel,
    rows: Sequence[QuestionRow],
    images: ImageProvider,
    *,
    max_new_tokens: int,
    options: WindowOptions | None = None,
    limits: BatchLimits | None = None,
) -> Iterator[list[Answer]]:
    """Greedy answers of at most `max_new_tokens` tokens, window by window, in the order of `rows`.

    Questions about the same image share its tokens' pass. A question whose image is broken, or whose turns the
    template cannot write, has no answer. Raises OutOfMemoryError if one question does not fit into memory.
    """
    for window in windows(model, rows, images, options or WindowOptions(), limits):
        window.load_images(range(len(window.rows)))
        found = _answered(model, window, max_new_tokens)
        losses = right_answer_losses(model, window, {i: row.turns for i, row in enumerate(window.rows)})
        yield [answer_of(window, i, found, losses) for i in range(len(window.rows))]


def _answered(model: VisionLanguageModel, window: RowWindow[QuestionRow], max_new_tokens: int) -> dict[int, Generated]:
    prompts = []
    for i, row in enumerate(window.rows):
        prompt = None if i in window.failures else rendered(window, i, model.render_prompt, row.turns)
        if prompt is not None:
            prompts.append(WindowPrompt(i, prompt))
    said = generate_texts(model, window, prompts, max_tokens=max_new_tokens)
    return {own.row: text for own, text in zip(prompts, said, strict=True)}


def right_answer_losses(
    model: VisionLanguageModel, window: RowWindow[QuestionRow], turns: Mapping[int, Turns]
) -> dict[int, tuple[float, int]]:
    """(loss, tokens) of the right answers of a window's rows, where there is one, behind the turns given by row."""
    whole: dict[int, RenderedRow] = {}
    for i, row in enumerate(window.rows):
        if i not in window.failures and row.right is not None:
            own = [*turns[i], ("assistant", row.right)]
            whole[i] = _last_answer(model.render(own, len(row.images), "full", window.shown(i)))
    members = [i for i, row in whole.items() if row.n_targets]

    def run(part: Sequence[int]) -> list[tuple[int, tuple[float, int]]]:
        scores = score_batch(model, [[whole[i]] for i in part], [window.features_of(i) for i in part])
        return [
            (i, (float(own.nll.sum()), len(own.nll)))
            for i, own in zip(part, [own for group in scores for own in group], strict=True)
        ]

    found: dict[int, tuple[float, int]] = {}
    for _, losses in window.run(members, [len(whole[i]) for i in members], run):
        found |= dict(losses)
    return found


def _last_answer(row: RenderedRow) -> RenderedRow:
    """The row with the targets of its last answer only; questions that the model asks itself are none."""
    index: NDArray[np.int64] = (
        row.answer_index if row.is_asked is None else np.where(row.is_asked, -1, row.answer_index)
    )
    return replace(row, answer_index=np.where(index == index.max(initial=-1), index, -1))


def answer_of(
    window: RowWindow[QuestionRow],
    i: int,
    found: Mapping[int, Generated],
    losses: Mapping[int, tuple[float, int]],
) -> Answer:
    """The answer of row `i`, given what was generated and the losses by row."""
    name = window.rows[i].sample_id
    failure: ContentFailure | None = window.failures.get(i)
    if failure is not None:
        return Answer(name, None, 0, failure=f"{failure.reason}: {failure.detail}")
    text, n_tokens = found[i]
    loss, n_targets = losses.get(i, (None, 0))
    return Answer(name, text, n_tokens, loss, n_targets)
