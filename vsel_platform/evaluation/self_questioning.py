"""Self-questioning inference (SQ-LLaVA, arXiv 2403.11299): the model describes the image, asks itself questions about
it, answers them, and then the real question. Every step runs in batches over a window of rows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import orjson

from vsel_platform.config_evaluation import AskingSettings
from vsel_platform.evaluation.answering import Answer, QuestionRow, answer_of, right_answer_losses
from vsel_platform.evaluation.equal_budget import plain_answers
from vsel_platform.evaluation.own_questions import Proposal, leading_system, own_questions, text_of
from vsel_platform.evaluation.self_questioning_prompts import final_turns
from vsel_platform.evaluation.window_prompts import (
    Generated,
    Turns,
    WindowPrompt,
    generate_texts,
    rendered,
)
from vsel_platform.models.batching import BatchLimits
from vsel_platform.models.images import ImageProvider
from vsel_platform.models.templates import IMAGE_TAG
from vsel_platform.models.vlm import RenderedRow, VisionLanguageModel
from vsel_platform.signals.windows import Row, RowWindow, WindowOptions, windows


def propose_questions(
    model: VisionLanguageModel,
    rows: Sequence[Row],
    images: ImageProvider,
    settings: AskingSettings,
    *,
    options: WindowOptions | None = None,
    limits: BatchLimits | None = None,
) -> Iterator[list[Proposal]]:
    """Questions about the images of rows, with the model's answers, window by window, in the order of `rows`.

    `settings.questions` are drawn of each row, all from the same prompt; a row without images gets none. What is drawn
    for a row depends on seed, row and model only. Raises OutOfMemoryError if one prompt does not fit into memory.
    """
    for window in windows(model, rows, images, options or WindowOptions(), limits):
        window.load_images(range(len(window.rows)))
        found = own_questions(model, window, settings)
        for i, failure in window.failures.items():
            found[i] = Proposal(window.rows[i].sample_id, failure=f"{failure.reason}: {failure.detail}")
        yield [found.get(i, Proposal(row.sample_id)) for i, row in enumerate(window.rows)]


def answer_with_self_questions(
    model: VisionLanguageModel,
    rows: Sequence[QuestionRow],
    images: ImageProvider,
    settings: AskingSettings,
    *,
    max_new_tokens: int,
    options: WindowOptions | None = None,
    limits: BatchLimits | None = None,
) -> Iterator[list[Answer]]:
    """Answers after self-questioning, window by window, in the order of `rows`; as `answering.answer_questions`.

    The answer itself is greedy and has at most `max_new_tokens` tokens; `n_tokens` counts all that were generated for
    it. `trace` has all steps, and plain answers for as many tokens (`evaluation.equal_budget`); text-only questions
    are answered plainly and have none. The loss of the right answer is that behind the own questions.
    """
    for window in windows(model, rows, images, options or WindowOptions(), limits):
        window.load_images(range(len(window.rows)))
        proposals = own_questions(model, window, settings)
        finals = _finals(model, window, proposals)
        members = list(finals)
        prompts = [WindowPrompt(i, finals[i].prompt) for i in members]
        said = dict(zip(members, generate_texts(model, window, prompts, max_tokens=max_new_tokens), strict=True))
        totals = {i: proposals[i].n_tokens + said[i].n_tokens for i in members if i in proposals}
        plain = plain_answers(model, window, totals, max_new_tokens=max_new_tokens, seed=settings.seed)
        losses = right_answer_losses(model, window, {i: final.turns for i, final in finals.items()})
        found = {i: Generated(own.text, totals.get(i, own.n_tokens)) for i, own in said.items()}
        traces = {i: _trace(proposals[i], finals[i], said[i], own) for i, own in plain.items()}
        yield [_with_trace(answer_of(window, i, found, losses), traces.get(i)) for i in range(len(window.rows))]


class _Final(NamedTuple):
    """How the real question is asked: turns, their prompt, and how many own questions stand before it."""

    turns: Turns
    prompt: RenderedRow
    n_shown: int
    is_described: bool


def _finals(
    model: VisionLanguageModel, window: RowWindow[QuestionRow], proposals: Mapping[int, Proposal]
) -> dict[int, _Final]:
    """How the question of every row is asked. As many own questions stand before it as the model has room for, the
    first ones; if there is no room for the description either, it is asked plainly."""
    found = {}
    for i, row in enumerate(window.rows):
        if i in window.failures:
            continue
        for turns, n_shown, is_described in _ways(row, proposals.get(i)):
            prompt = rendered(window, i, model.render_prompt, turns)
            if prompt is None:
                break
            found[i] = _Final(turns, prompt, n_shown, is_described)
            if not prompt.n_cut:
                break
    return found


def _ways(row: QuestionRow, proposal: Proposal | None) -> Iterator[tuple[Turns, int, bool]]:
    """Ways of asking a question, the longest first: turns, own questions in them, whether the description is."""
    if proposal is not None:
        description = text_of(proposal.description)
        asked = [(own.question.text, own.answer.text) for own in proposal.asked]
        system = leading_system(row.turns)
        (_, question), *rest = row.turns[len(system) :]
        behind = [(role, text.replace(IMAGE_TAG, "").strip()) for role, text in rest]
        for count in range(len(asked), -1 if description is not None else 0, -1):
            turns = final_turns(description, asked[:count], question, len(row.images))
            yield [*system, *turns, *behind], count, description is not None
    yield row.turns, 0, False


def _trace(proposal: Proposal, final: _Final, answer: Generated, plain: Sequence[Generated]) -> str:
    more = {
        "shown": {"description": final.is_described, "questions": final.n_shown},
        "answer": answer._asdict(),
        "plain": [own._asdict() for own in plain],
    }
    return orjson.dumps(proposal.to_dict() | more).decode()


def _with_trace(answer: Answer, trace: str | None) -> Answer:
    return replace(answer, trace=trace) if answer.text is not None else answer
