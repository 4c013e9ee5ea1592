"""Greedy answers to questions, batched: what a kill leaves is whole windows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vsel_platform.errors import DataError
from vsel_platform.evaluation.benchmark import Question
from vsel_platform.models.batching import BatchLimits
from vsel_platform.models.generation import prompt_groups
from vsel_platform.models.images import ContentFailure, ImageProvider
from vsel_platform.models.packing import packed_length
from vsel_platform.models.scoring import score_batch
from vsel_platform.models.vlm import RenderedRow, VisionLanguageModel
from vsel_platform.signals.windows import RowWindow, WindowOptions, by_unit, windows


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model answered. text: None if it could not be asked (`failure` says why). n_tokens: generated, the end
    token included. loss_sum: of the right answer's tokens under teacher forcing [nat], n_target_tokens of them; None
    where there is not exactly one."""

    question_id: str
    text: str | None
    n_tokens: int
    loss_sum: float | None = None
    n_target_tokens: int = 0
    failure: str | None = None


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
        found = dict(_answered(model, window, max_new_tokens))
        losses = dict(_losses(model, window))
        yield [_answer(window, i, found, losses) for i in range(len(window.rows))]


def _answered(
    model: VisionLanguageModel, window: RowWindow[QuestionRow], max_new_tokens: int
) -> Iterator[tuple[int, tuple[str, int]]]:
    prompts: dict[int, RenderedRow] = {}
    for i, row in enumerate(window.rows):
        if i not in window.failures:
            try:
                prompts[i] = model.render_prompt(row.turns, len(row.images), window.shown(i))
            except DataError as error:
                window.fail(i, "unusable_question", str(error))
    members = list(prompts)
    groups = prompt_groups(
        [window.rows[i].images for i in members],
        [prompts[i] for i in members],
        [model.image_places(prompts[i]) for i in members],
    )
    units = [[members[k] for k in group] for group in groups]
    lengths = [packed_length([prompts[i] for i in unit]) + len(unit) * max_new_tokens for unit in units]

    def ask(part: Sequence[int]) -> list[tuple[int, tuple[str, int]]]:
        features = [window.features_of(i) for i in part]
        tokens = model.answer([prompts[i] for i in part], features, max_tokens=max_new_tokens)
        return [(i, (model.text_of(own), len(own))) for i, own in zip(part, tokens, strict=True)]

    def run(part: Sequence[int]) -> list[tuple[int, tuple[str, int]]]:
        return by_unit([units[number] for number in part], ask)

    for _, answers in window.run(range(len(units)), lengths, run, row_of=lambda number: units[number][0]):
        yield from answers


def _losses(model: VisionLanguageModel, window: RowWindow[QuestionRow]) -> Iterator[tuple[int, tuple[float, int]]]:
    """(loss, tokens) of the right answers."""
    rendered: dict[int, RenderedRow] = {}
    for i, row in enumerate(window.rows):
        if i not in window.failures and row.right is not None:
            turns = [*row.turns, ("assistant", row.right)]
            rendered[i] = _last_answer(model.render(turns, len(row.images), "full", window.shown(i)))
    members = [i for i, row in rendered.items() if row.n_targets]

    def run(part: Sequence[int]) -> list[tuple[int, tuple[float, int]]]:
        scores = score_batch(model, [[rendered[i]] for i in part], [window.features_of(i) for i in part])
        return [
            (i, (float(own.nll.sum()), len(own.nll)))
            for i, own in zip(part, [own for group in scores for own in group], strict=True)
        ]

    for _, losses in window.run(members, [len(rendered[i]) for i in members], run):
        yield from losses


def _last_answer(row: RenderedRow) -> RenderedRow:
    """The row with the targets of its last answer only."""
    index: NDArray[np.int64] = row.answer_index
    kept = np.where(index == index.max(initial=-1), index, -1)
    return RenderedRow(row.input_ids, kept, row.n_cut, row.is_question, row.positions)


def _answer(
    window: RowWindow[QuestionRow],
    i: int,
    found: dict[int, tuple[str, int]],
    losses: dict[int, tuple[float, int]],
) -> Answer:
    name = window.rows[i].sample_id
    failure: ContentFailure | None = window.failures.get(i)
    if failure is not None:
        return Answer(name, None, 0, failure=f"{failure.reason}: {failure.detail}")
    text, n_tokens = found[i]
    loss, n_targets = losses.get(i, (None, 0))
    return Answer(name, text, n_tokens, loss, n_targets)
