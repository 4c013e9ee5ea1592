"""VizWiz-VQA: `val.json` (with answers) or `test.json` (without), a list of `{image, question, answers}`.

llava: the official VQA evaluation of the normalised answer, which is what LLaVA uploads. official: the same of the
answer as it is. robust: answer and annotations are always normalised (lmms-eval).
"""

from collections.abc import Sequence
from pathlib import PurePosixPath

from vsel_platform.evaluation.benchmark import (
    BenchmarkFiles,
    BenchmarkFormat,
    Compat,
    Judgement,
    Measure,
    Question,
    mean_measures,
)
from vsel_platform.evaluation.formats.annotation_files import Entry, read_entries
from vsel_platform.evaluation.formats.choices import SHORT_SENTENCE, user_turn
from vsel_platform.evaluation.formats.vqav2 import judge_answers
from vsel_platform.evaluation.text_benchmarks import all_questions, annotator_answers, require_compat, to_json
from vsel_platform.evaluation.vqa_normalise import normalise_answer

UNANSWERABLE_SENTENCE = "When the provided information is insufficient, respond with 'Unanswerable'."


class VizWizFormat(BenchmarkFormat):
    """Questions that blind people asked about their own photographs."""

    name = "vizwiz"
    compats: tuple[Compat, ...] = ("llava", "official", "robust")
    headline = "accuracy"
    max_new_tokens = 128

    def read(self, files: BenchmarkFiles) -> list[Question]:
        """Questions in the order of the file; the id is the image's name. Raises DataError naming the problem."""
        return all_questions(files.questions, [_question(entry) for entry in read_entries(files.questions)])

    def judge(self, questions: Sequence[Question], texts: Sequence[str | None], compat: Compat) -> list[Judgement]:
        """Share of annotators that agree, see `vqa_normalise.official_accuracy`."""
        require_compat(self.name, compat, self.compats)
        return judge_answers(questions, texts, compat)

    def measures(self, questions: Sequence[Question], judgements: Sequence[Judgement], compat: Compat) -> list[Measure]:
        """Accuracy of all and by answer type."""
        return mean_measures("accuracy", questions, judgements)

    def upload(self, questions: Sequence[Question], texts: Sequence[str | None]) -> dict[str, bytes]:
        """`vizwiz_results.json`: the normalised answer of every image, "" where there is none."""
        results = [
            {"image": PurePosixPath(question.images[0]).name, "answer": normalise_answer(text or "")}
            for question, text in zip(questions, texts, strict=True)
        ]
        return {"vizwiz_results.json": to_json(results)}


def _question(entry: Entry) -> Question:
    image = entry.text("image")
    return Question(
        question_id=PurePosixPath(image).stem,
        turns=user_turn(f"{entry.text('question')}\n{UNANSWERABLE_SENTENCE}\n{SHORT_SENTENCE}"),
        images=(image,),
        answers=annotator_answers(entry) if "answers" in entry.values else (),
        cluster=image,
        category=entry.text("answer_type") if "answer_type" in entry.values else "",
    )


FORMAT = VizWizFormat()
