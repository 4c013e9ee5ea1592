"""Questions that a model asked itself as rows to train on, marked as synthetic (LLaVA JSON)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from vsel_platform.evaluation.own_questions import Asked, Proposal
from vsel_platform.evaluation.text_overlap import words
from vsel_platform.models.templates import IMAGE_TAG

METHOD = "self_questioning"
NEAR_DUPLICATE = 0.85
"""Questions are near-duplicates from this share of common words on: one word more in a question of six is one."""
_ARTICLES = {"a", "an", "the"}


@dataclass(frozen=True, slots=True)
class SourceOfQuestions:
    """The row that questions were proposed for: identity, task of the new rows, image paths as a source row gives them,
    and the questions that it has already."""

    sample_id: str
    task: str
    images: tuple[str, ...]
    questions: tuple[str, ...]


@dataclass
class ProposedRows:
    """Makes rows of proposals. dropped: questions that became none, by reason.

    by: fingerprint of the model. question_tokens, answer_tokens: the limits; what is as long was cut off.
    """

    by: str
    question_tokens: int
    answer_tokens: int
    dropped: Counter[str] = field(default_factory=Counter)
    _known: dict[tuple[str, ...], list[str]] = field(default_factory=dict)

    def rows(self, source: SourceOfQuestions, proposal: Proposal) -> list[dict[str, Any]]:
        """Rows of one proposal. A question that is like one of the source row, or like one that was proposed for the
        same images before, is dropped; so is one that was cut off, or whose answer is blank or was cut off."""
        self.dropped["blank_repeated_or_too_long"] += len(proposal.dropped)
        known = self._known.setdefault(source.images, [])
        known.extend(source.questions)
        found: list[dict[str, Any]] = []
        for asked in proposal.asked:
            reason = self._fault(asked, known)
            if reason is not None:
                self.dropped[reason] += 1
                continue
            known.append(asked.question.text)
            found.append(_row(source, asked, len(found), self.by))
        return found

    def _fault(self, asked: Asked, known: Sequence[str]) -> str | None:
        if asked.question.n_tokens >= self.question_tokens or asked.answer.n_tokens >= self.answer_tokens:
            return "cut_off"
        if not asked.answer.text:
            return "no_answer"
        return "near_duplicate" if any(is_near(asked.question.text, own) for own in known) else None


def is_near(a: str, b: str) -> bool:
    """Whether two questions have nearly the same words: Jaccard index of their sets of words, articles aside, of at
    least NEAR_DUPLICATE. Image tags, case and punctuation do not count."""
    first, second = ({*words(text.replace(IMAGE_TAG, " "))} - _ARTICLES for text in (a, b))
    return len(first & second) >= NEAR_DUPLICATE * len(first | second)


def _row(source: SourceOfQuestions, asked: Asked, number: int, by: str) -> dict[str, Any]:
    tags = f"{IMAGE_TAG}\n" * len(source.images)
    return {
        "id": f"{source.sample_id[:16]}-asked-{number}",
        "image": source.images[0] if len(source.images) == 1 else list(source.images),
        "task": source.task,
        "conversations": [
            {"from": "human", "value": tags + asked.question.text},
            {"from": "gpt", "value": asked.answer.text},
        ],
        "synthetic": {"by": by, "method": METHOD, "of": source.sample_id},
    }
