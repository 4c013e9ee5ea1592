"""GQA: `testdev_balanced_questions.json` (Hudson and Manning 2019).

Questions that are not balanced are left out, as the published evaluation does not count them.

llava: the answer without trailing dots in lower case must equal the right one. official: the answer as it is.
robust: case and punctuation do not count (exact match of lmms-eval). Open questions are those of structural type
query, all others are binary.
"""

import string
from collections.abc import Sequence

import numpy as np

from vsel_platform.errors import DataError
from vsel_platform.evaluation.benchmark import (
    BenchmarkFiles,
    BenchmarkFormat,
    Compat,
    Judgement,
    Measure,
    Question,
    mean_measures,
    ratio_measure,
)
from vsel_platform.evaluation.formats.annotation_files import Entry
from vsel_platform.evaluation.formats.choices import SHORT_SENTENCE, user_turn
from vsel_platform.evaluation.text_benchmarks import (
    all_questions,
    read_object,
    require_compat,
    split_measures,
    to_json,
    unanswered,
)

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
# The last step of a programme names or checks what was found; it does not make the reasoning longer.
_NO_STEP = ("exist", "query: name", "choose name")


def submitted(text: str) -> str:
    """Answer as LLaVA hands it in: no trailing dots, lower case."""
    return text.rstrip(".").lower()


def reasoning_steps(semantic: Sequence[dict[str, str]]) -> int:
    """Steps of a question's programme, without those that only name or check the result."""
    steps = [f"{step['operation']}: {step['argument']}" for step in semantic]
    return sum(not any(part in step for part in _NO_STEP) for step in steps)


class GqaFormat(BenchmarkFormat):
    """GQA test-dev, balanced."""

    name = "gqa"
    compats: tuple[Compat, ...] = ("llava", "official", "robust")
    headline = "accuracy"
    max_new_tokens = 128

    def read(self, files: BenchmarkFiles) -> list[Question]:
        """Balanced questions in the order of the file. Raises DataError that names file, question and problem."""
        found = []
        for key, values in read_object(files.questions).items():
            if not isinstance(values, dict):
                raise DataError(f"{files.questions}, question {key}: not an object; use the published file unchanged")
            if values.get("isBalanced"):
                found.append(_question(key, Entry(files.questions, f"question {key}", values)))
        return all_questions(files.questions, found)

    def judge(self, questions: Sequence[Question], texts: Sequence[str | None], compat: Compat) -> list[Judgement]:
        """1 for the right answer, else 0."""
        require_compat(self.name, compat, self.compats)
        return [
            unanswered(question) if text is None else _judgement(question, text, compat)
            for question, text in zip(questions, texts, strict=True)
        ]

    def measures(self, questions: Sequence[Question], judgements: Sequence[Judgement], compat: Compat) -> list[Measure]:
        """Accuracy of all, of binary and of open questions, then by type, reasoning steps and words."""
        known = np.array([judgement.score is not None for judgement in judgements], dtype=np.float64)
        scores = np.array([judgement.score or 0.0 for judgement in judgements], dtype=np.float64)
        is_open = np.array([question.extra["structural"] == "query" for question in questions], dtype=np.bool_)
        found = mean_measures("accuracy", questions, judgements, by_category=False)
        for name, members in (("binary", known * ~is_open), ("open", known * is_open)):
            found.append(ratio_measure(name, scores * members, members))
        for key in ("structural", "semantic", "steps", "words"):
            found += split_measures(f"accuracy_by_{key}", questions, judgements, key)
        return found

    def upload(self, questions: Sequence[Question], texts: Sequence[str | None]) -> dict[str, bytes]:
        """`testdev_balanced_predictions.json`, the input of the official evaluation; "" where no answer is."""
        predictions = [
            {"questionId": question.question_id, "prediction": submitted(text or "")}
            for question, text in zip(questions, texts, strict=True)
        ]
        return {"testdev_balanced_predictions.json": to_json(predictions)}


def _question(question_id: str, entry: Entry) -> Question:
    image, text = entry.identifier("imageId"), entry.text("question")
    types, semantic = entry.values.get("types"), entry.values.get("semantic")
    if not isinstance(types, dict) or not {"structural", "semantic"} <= types.keys():
        raise entry.error("'types' lacks the structural or the semantic type; use the published file unchanged")
    if not isinstance(semantic, list) or not all({"operation", "argument"} <= step.keys() for step in semantic):
        raise entry.error("'semantic' is not a list of steps; use the published file unchanged")
    answer = entry.values.get("answer")
    return Question(
        question_id=question_id,
        turns=user_turn(f"{text}\n{SHORT_SENTENCE}"),
        images=(f"{image}.jpg",),
        answers=() if answer is None else (entry.text("answer"),),
        cluster=image,
        category=str(types["structural"]),
        extra={
            "structural": str(types["structural"]),
            "semantic": str(types["semantic"]),
            "steps": str(reasoning_steps(semantic)),
            "words": str(len(text.split())),
        },
    )


def _judgement(question: Question, text: str, compat: Compat) -> Judgement:
    found = {"llava": submitted(text), "official": text, "robust": _bare(text)}[compat]
    answers = [_bare(answer) for answer in question.answers] if compat == "robust" else question.answers
    return Judgement(found, float(found in answers) if answers else None)


def _bare(text: str) -> str:
    return " ".join(text.lower().translate(_NO_PUNCTUATION).split())


FORMAT = GqaFormat()
