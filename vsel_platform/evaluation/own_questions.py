"""What a model asks itself about the images of rows: description, drawn questions, answers (SQ-LLaVA).

Every step runs in batches over a window of rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from vsel_platform.config_evaluation import AskingSettings
from vsel_platform.evaluation.self_questioning_prompts import (
    answering_turns,
    asking_turns,
    describing_turns,
    distinct_questions,
)
from vsel_platform.evaluation.window_prompts import (
    Generated,
    Turns,
    WindowPrompt,
    chances,
    generate_texts,
    rendered,
)
from vsel_platform.models.sampling import Sampling
from vsel_platform.models.templates import IMAGE_TAG
from vsel_platform.models.vlm import VisionLanguageModel
from vsel_platform.signals.windows import Row, RowWindow

PURPOSE = "own questions"


class Asked(NamedTuple):
    """A question of the model's own, and its answer."""

    question: Generated
    answer: Generated


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a model asked itself about the images of a row.

    dropped: questions that were drawn and are blank, repeated, or too long to be answered. failure: why there is
    nothing.
    """

    sample_id: str
    description: Generated | None = None
    asked: tuple[Asked, ...] = ()
    dropped: tuple[Generated, ...] = ()
    failure: str | None = None

    @property
    def n_tokens(self) -> int:
        """Tokens that were generated for it."""
        said = [*(part for own in self.asked for part in own), *self.dropped]
        return sum(own.n_tokens for own in said) + (self.description.n_tokens if self.description else 0)

    def to_dict(self) -> dict[str, Any]:
        """What was said, for JSON."""
        return {
            "description": self.description._asdict() if self.description else None,
            "asked": [
                {
                    "question": own.question.text,
                    "question_tokens": own.question.n_tokens,
                    "answer": own.answer.text,
                    "answer_tokens": own.answer.n_tokens,
                }
                for own in self.asked
            ],
            "dropped": [question._asdict() for question in self.dropped],
        }

    @classmethod
    def from_dict(cls, sample_id: str, value: Mapping[str, Any]) -> Self:
        """The proposal of a row out of `to_dict`."""
        described = value["description"]
        asked = (
            Asked(Generated(own["question"], own["question_tokens"]), Generated(own["answer"], own["answer_tokens"]))
            for own in value["asked"]
        )
        return cls(
            sample_id,
            Generated(**described) if described else None,
            tuple(asked),
            tuple(Generated(**question) for question in value["dropped"]),
        )


def own_questions(model: VisionLanguageModel, window: RowWindow[Row], settings: AskingSettings) -> dict[int, Proposal]:
    """What the model asks itself about every row of a window that has images, by row; they have to be loaded."""
    members = [i for i, row in enumerate(window.rows) if row.images and i not in window.failures]
    descriptions: dict[int, Generated | None] = dict.fromkeys(members)
    if settings.describe:
        descriptions = dict(_descriptions(model, window, members, settings.answer_tokens))
    drawn = _drawn(model, window, descriptions, settings)
    kept, dropped = {}, {}
    for i, questions in drawn.items():
        kept[i], dropped[i] = _distinct(questions)
    asked = _answered(model, window, descriptions, kept, settings.answer_tokens)
    found = {}
    for i in drawn:
        if i not in window.failures:
            left = [question for question in kept[i] if question not in [own.question for own in asked[i]]]
            found[i] = Proposal(window.rows[i].sample_id, descriptions[i], tuple(asked[i]), (*dropped[i], *left))
    return found


def _descriptions(
    model: VisionLanguageModel, window: RowWindow[Row], members: Sequence[int], max_tokens: int
) -> Iterator[tuple[int, Generated]]:
    """Greedy descriptions; rows that show the same are described together."""
    prompts: dict[tuple[tuple[str, ...], bytes], WindowPrompt] = {}
    keys = {}
    for i in members:
        row = window.rows[i]
        turns = [*leading_system(row.turns), *describing_turns(len(row.images))]
        prompt = rendered(window, i, model.render_prompt, turns)
        if prompt is not None:
            keys[i] = (tuple(row.images), prompt.input_ids.tobytes())
            prompts.setdefault(keys[i], WindowPrompt(i, prompt))
    said = generate_texts(model, window, list(prompts.values()), max_tokens=max_tokens)
    by_key = dict(zip(prompts, map(_without_tags, said), strict=True))
    for i, key in keys.items():
        yield i, by_key[key]


def _drawn(
    model: VisionLanguageModel,
    window: RowWindow[Row],
    descriptions: Mapping[int, Generated | None],
    settings: AskingSettings,
) -> dict[int, list[Generated]]:
    """Questions as they were drawn, by row; none where the prompt is longer than the model's limit."""
    found: dict[int, list[Generated]] = {}
    prompts = []
    for i, description in descriptions.items():
        row = window.rows[i]
        turns = [*leading_system(row.turns), *asking_turns(text_of(description), len(row.images))]
        prompt = rendered(window, i, model.render_question_prompt, turns)
        if prompt is None:
            continue
        found[i] = []
        for number in range(settings.questions if not prompt.n_cut else 0):
            own = chances(settings.seed, PURPOSE, row.sample_id, number, settings.question_tokens)
            prompts.append(WindowPrompt(i, prompt, own))
    sampling = Sampling(settings.temperature, settings.top_k, settings.top_p)
    said = generate_texts(model, window, prompts, max_tokens=settings.question_tokens, sampling=sampling)
    for asked, question in zip(prompts, said, strict=True):
        found[asked.row].append(_without_tags(question))
    return found


def _distinct(questions: Sequence[Generated]) -> tuple[list[Generated], list[Generated]]:
    """Questions without blank and repeated ones, and these."""
    kept: list[Generated] = []
    dropped: list[Generated] = []
    names = distinct_questions([question.text for question in questions])
    for question in questions:
        is_new = len(kept) < len(names) and question.text == names[len(kept)]
        (kept if is_new else dropped).append(question)
    return kept, dropped


def _answered(
    model: VisionLanguageModel,
    window: RowWindow[Row],
    descriptions: Mapping[int, Generated | None],
    questions: Mapping[int, Sequence[Generated]],
    max_tokens: int,
) -> dict[int, list[Asked]]:
    """Greedy answers to the own questions of rows, but for those whose prompt is longer than the model's limit."""
    prompts, asked = [], []
    for i, own in questions.items():
        row = window.rows[i]
        for question in own:
            turns = answering_turns(text_of(descriptions[i]), question.text, len(row.images))
            prompt = rendered(window, i, model.render_prompt, [*leading_system(row.turns), *turns])
            if prompt is not None and not prompt.n_cut:
                prompts.append(WindowPrompt(i, prompt))
                asked.append(question)
    found: dict[int, list[Asked]] = {i: [] for i in questions}
    said = generate_texts(model, window, prompts, max_tokens=max_tokens)
    for shown, question, answer in zip(prompts, asked, said, strict=True):
        found[shown.row].append(Asked(question, _without_tags(answer)))
    return found


def leading_system(turns: Turns) -> list[tuple[str, str]]:
    """The system turn in front of a conversation, if there is one."""
    return [turn for turn in turns[:1] if turn[0] == "system"]


def _without_tags(said: Generated) -> Generated:
    """The text without image tags, for which there would be no image."""
    return Generated(said.text.replace(IMAGE_TAG, "").strip(), said.n_tokens)


def text_of(said: Generated | None) -> str | None:
    """The text, if there is one."""
    return None if said is None else said.text
