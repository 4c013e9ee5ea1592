"""VQAv2 and OK-VQA: `*OpenEnded_mscoco_*_questions.json` and `*mscoco_*_annotations.json` (no annotations: test).

llava: the official evaluation of the normalised answer, which is what LLaVA uploads. official: the official
evaluation of the answer as it is (texts are normalised only if the annotators disagree). robust: answer and
annotations are always normalised, as lmms-eval and VLMEvalKit do.

Uploading test-dev: the server wants every id of the test file. Read `v2_OpenEnded_mscoco_test2015_questions.json` as
questions; `upload` writes "" for those that were not answered.
"""

from collections.abc import Mapping, Sequence

from vsel_platform.errors import DataError
from vsel_platform.evaluation.benchmark import (
    BenchmarkFiles,
    BenchmarkFormat,
    Compat,
    Judgement,
    Measure,
    Question,
    mean_measures,
)
from vsel_platform.evaluation.formats.annotation_files import Entry
from vsel_platform.evaluation.formats.choices import SHORT_SENTENCE, user_turn
from vsel_platform.evaluation.text_benchmarks import (
    all_questions,
    annotator_answers,
    read_object,
    require_compat,
    section,
    split_measures,
    to_json,
    unanswered,
)
from vsel_platform.evaluation.vqa_normalise import ACCURACIES, normalise_answer


class VqaFormat(BenchmarkFormat):
    """Open-ended questions about COCO images with ten annotators each."""

    name = "vqav2"
    compats: tuple[Compat, ...] = ("llava", "official", "robust")
    headline = "accuracy"
    max_new_tokens = 128
    takes_annotations = True

    def read(self, files: BenchmarkFiles) -> list[Question]:
        """Questions in the order of the file; the answers are joined by id.

        Raises DataError that names file, entry and problem, or a question without annotation.
        """
        content = read_object(files.questions)
        subtype = content.get("data_subtype")
        if not isinstance(subtype, str):
            raise DataError(f"{files.questions}: 'data_subtype' is not a text; use the published file unchanged")
        annotations = None if files.annotations is None else _annotations(files.annotations)
        split = subtype.replace("test-dev", "test")
        entries = section(files.questions, content, "questions")
        return all_questions(files.questions, [_question(entry, split, annotations) for entry in entries])

    def judge(self, questions: Sequence[Question], texts: Sequence[str | None], compat: Compat) -> list[Judgement]:
        """Share of annotators that agree, see `vqa_normalise.official_accuracy`."""
        require_compat(self.name, compat, self.compats)
        return judge_answers(questions, texts, compat)

    def measures(self, questions: Sequence[Question], judgements: Sequence[Judgement], compat: Compat) -> list[Measure]:
        """Accuracy of all, by answer type (the categories), then by question type."""
        found = mean_measures("accuracy", questions, judgements)
        return found + split_measures("accuracy_by_question_type", questions, judgements, "question_type")

    def upload(self, questions: Sequence[Question], texts: Sequence[str | None]) -> dict[str, bytes]:
        """`vqav2_results.json`: the normalised answer of every question."""
        results = [
            {"question_id": int(question.question_id), "answer": normalise_answer(text or "")}
            for question, text in zip(questions, texts, strict=True)
        ]
        return {"vqav2_results.json": to_json(results)}


def judge_answers(questions: Sequence[Question], texts: Sequence[str | None], compat: Compat) -> list[Judgement]:
    """Judgements of short answers against the annotators; `parsed` is the normalised answer."""
    accuracy = ACCURACIES[compat]
    return [
        unanswered(question)
        if text is None
        else Judgement(normalise_answer(text), accuracy(text, question.answers) if question.answers else None)
        for question, text in zip(questions, texts, strict=True)
    ]


def _annotations(path: str) -> Mapping[str, Entry]:
    entries = section(path, read_object(path), "annotations")
    return {entry.identifier("question_id"): entry for entry in entries}


def _question(entry: Entry, split: str, annotations: Mapping[str, Entry] | None) -> Question:
    number, image = entry.values.get("question_id"), entry.values.get("image_id")
    if not isinstance(number, int) or not isinstance(image, int):
        raise entry.error("'question_id' or 'image_id' is not an integer; use the published file unchanged")
    extra: dict[str, str] = {}
    answers: tuple[str, ...] = ()
    if annotations is not None:
        found = annotations.get(str(number))
        if found is None:
            raise entry.error(f"question {number} has no annotation; the files must be of the same split")
        answers = annotator_answers(found)
        extra = {key: found.text(key) for key in ("question_type", "answer_type")}
    return Question(
        question_id=str(number),
        turns=user_turn(f"{entry.text('question')}\n{SHORT_SENTENCE}"),
        images=(f"COCO_{split}_{image:012d}.jpg",),
        answers=answers,
        cluster=str(image),
        category=extra.get("answer_type", ""),
        extra=extra,
    )


FORMAT = VqaFormat()
