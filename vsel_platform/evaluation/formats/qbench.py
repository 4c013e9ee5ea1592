"""Q-Bench (LLVisionQA): multiple-choice questions about low-level vision.

Source: benchmark specification, section 5.11; LLaVA's `model_vqa_qbench.py`, SQ-LLaVA's `qbench_eval.py`.
"""

from collections.abc import Sequence

from vsel_platform.evaluation.benchmark import (
    BenchmarkFiles,
    BenchmarkFormat,
    Compat,
    Judgement,
    Measure,
    Question,
    mean_measures,
)
from vsel_platform.evaluation.formats.annotation_files import Entry, check_unique, read_entries
from vsel_platform.evaluation.formats.choices import LETTERS, lettered, read_option, user_turn


class QBench(BenchmarkFormat):
    """Q-Bench. "llava" and "official" are the same, `is_right`; "robust" reads the option out of a longer answer.

    Q-Bench's own judge for free answers is a language model, which is not part of this.
    """

    name = "qbench"
    compats: tuple[Compat, ...] = ("llava", "official", "robust")
    headline = "accuracy"
    max_new_tokens = 1024

    def read(self, files: BenchmarkFiles) -> list[Question]:
        """Questions of `llvisionqa_dev.json` in the order of the file, ids their image names and places in the file.

        `type` is the category. Without `correct_ans` (test set) no answer is known.
        Raises DataError for a wrong file.
        """
        found = [_question(entry, place) for place, entry in enumerate(read_entries(files.questions))]
        return check_unique(files.questions, found)

    def judge(self, questions: Sequence[Question], texts: Sequence[str | None], compat: Compat) -> list[Judgement]:
        """The text of the option that was read."""
        found = []
        for question, text in zip(questions, texts, strict=True):
            right = question.answers[0] if question.answers else None
            if compat == "robust":
                parsed = _option(read_option(text, question.choices), question.choices)
                score = None if right is None else float(parsed == right)
            else:
                parsed = None if text is None else parse_answer(text, question.choices)
                score = None if right is None else float(text is not None and is_right(text, question.choices, right))
            found.append(Judgement(parsed, score))
        return found

    def measures(self, questions: Sequence[Question], judgements: Sequence[Judgement], compat: Compat) -> list[Measure]:
        """`accuracy` of all and of every category [percent]."""
        return mean_measures(self.headline, questions, judgements)

    def upload(self, questions: Sequence[Question], texts: Sequence[str | None]) -> dict[str, bytes]:
        """Nothing is uploaded."""
        return {}


def is_right(text: str, choices: Sequence[str], right: str) -> bool:
    """Whether the option of the first character, the first word or the whole text equals the right option."""
    place = ord(text[0]) - ord("A") if text else -1
    return (0 <= place < len(choices) and choices[place] == right) or right in (text.split(" ", maxsplit=1)[0], text)


def parse_answer(text: str, choices: Sequence[str]) -> str | None:
    """Option that `is_right` would take `text` for: of the whole text, the first word or the first character."""
    for found in (text, text.split(" ", maxsplit=1)[0], _option(text[:1], choices)):
        if found in choices:
            return found
    return None


def _option(letter: str | None, choices: Sequence[str]) -> str | None:
    place = LETTERS.find(letter) if letter else -1
    return choices[place] if 0 <= place < len(choices) else None


def _question(entry: Entry, place: int) -> Question:
    image, choices = entry.text("img_path"), entry.texts("candidates")
    right = entry.text("correct_ans") if entry.values.get("correct_ans") is not None else None
    if right is not None and right not in choices:
        raise entry.error(f"'correct_ans' {right!r} is not one of the candidates; use the published file unchanged")
    return Question(
        question_id=f"{image}#{place}",
        turns=user_turn(
            f"{entry.text('question')}\nChoose between one of the options as follows:\n{lettered(choices)}\n"
        ),
        images=(image,),
        answers=() if right is None else (right,),
        cluster=image,
        choices=choices,
        category=str(entry.values.get("type", "")),
    )


FORMAT = QBench()
