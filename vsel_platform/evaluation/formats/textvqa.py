"""TextVQA: `TextVQA_0.5.1_val.json`, or LLaVA's `llava_textvqa_val_v051_ocr.jsonl` with that file as annotations.

The prompt holds the OCR tokens as LLaVA's does: from `ocr_tokens` of an entry, or from option `ocr_tokens`, the path
of `TextVQA_Rosetta_OCR_v0.2_val.json`; without either there is no such line. Questions begin with a capital, as in
LLaVA's file. LLaVA's lines are joined with the annotations by image and lower-case question.

All three ways of judging agree here: the evaluation that LLaVA uses is the official one (answer and annotations
normalised, mean over annotators of min(1, matches among the others / 3)), and lmms-eval does the same.
"""

import re
from collections.abc import Mapping, Sequence

from vsel_platform.errors import DataError
from vsel_platform.evaluation.benchmark import (
    BenchmarkFiles,
    BenchmarkFormat,
    Compat,
    Judgement,
    Measure,
    OptionKind,
    Question,
    mean_measures,
)
from vsel_platform.evaluation.formats.annotation_files import Entry, read_entries
from vsel_platform.evaluation.formats.choices import SHORT_SENTENCE, user_turn
from vsel_platform.evaluation.formats.vqav2 import judge_answers
from vsel_platform.evaluation.text_benchmarks import (
    all_questions,
    annotator_answers,
    read_object,
    require_compat,
    section,
)

OCR_LINE = "Reference OCR token: "
_SHORT_ANSWER_PROMPT = re.compile(r"Question: (.*?) Short answer:", re.DOTALL)


def question_of_prompt(prompt: str) -> str:
    """The question, in lower case, of a prompt with or without OCR tokens.

    Known are "question, format sentence", the same with a line "Reference OCR token: " first or second, and
    "OCR tokens: ... Question: ... Short answer:". Raises DataError for any other prompt.
    """
    lines = prompt.split("\n")
    if prompt.startswith("OCR tokens: "):
        match = _SHORT_ANSWER_PROMPT.search(prompt)
        found = match.group(1) if match else None
    elif len(lines) == 3 and OCR_LINE in prompt:
        found = lines[1] if prompt.startswith(OCR_LINE.rstrip()) else lines[0]
    else:
        found = lines[0] if len(lines) == 2 else None
    if found is None:
        raise DataError(f"the prompt {prompt!r} is none of LLaVA's TextVQA prompts; use the published file unchanged")
    return found.lower()


class TextVqaFormat(BenchmarkFormat):
    """Questions about text in images."""

    name = "textvqa"
    compats: tuple[Compat, ...] = ("llava", "official", "robust")
    headline = "accuracy"
    max_new_tokens = 128
    options: Mapping[str, OptionKind] = {"ocr_tokens": "path"}
    takes_annotations = True

    def files(self, files: BenchmarkFiles) -> list[str]:
        """LLaVA's prompts and the annotations, or the annotations and the tokens."""
        other = files.annotations if _holds_prompts(files) else files.options.get("ocr_tokens")
        return [files.questions, *([] if other is None else [other])]

    def read(self, files: BenchmarkFiles) -> list[Question]:
        """Questions in the order of the file. Raises DataError that names file, entry and problem."""
        if _holds_prompts(files):
            questions = _read_prompts(files.questions, files.annotations)
        else:
            tokens = _ocr_tokens(files.options.get("ocr_tokens"))
            entries = section(files.questions, read_object(files.questions), "data")
            questions = [_question(entry, _prompt(entry, tokens)) for entry in entries]
        return all_questions(files.questions, questions)

    def judge(self, questions: Sequence[Question], texts: Sequence[str | None], compat: Compat) -> list[Judgement]:
        """Share of annotators that agree, answer and annotations normalised."""
        require_compat(self.name, compat, self.compats)
        return judge_answers(questions, texts, "robust")

    def measures(self, questions: Sequence[Question], judgements: Sequence[Judgement], compat: Compat) -> list[Measure]:
        """Accuracy of all questions."""
        return mean_measures("accuracy", questions, judgements)

    def upload(self, questions: Sequence[Question], texts: Sequence[str | None]) -> dict[str, bytes]:
        """Nothing: the answers of the validation split are public."""
        return {}


def _holds_prompts(files: BenchmarkFiles) -> bool:
    return files.questions.endswith(".jsonl")


def _read_prompts(path: str, annotations: str | None) -> list[Question]:
    if annotations is None:
        raise DataError(f"{path}: holds prompts only; give TextVQA_0.5.1_val.json as annotations")
    by_question = {
        (entry.identifier("image_id"), entry.text("question").lower()): entry
        for entry in section(annotations, read_object(annotations), "data")
    }
    found = []
    for line in read_entries(path):
        prompt = line.text("text")
        entry = by_question.get((line.identifier("question_id"), question_of_prompt(prompt)))
        if entry is None:
            raise line.error(f"its image and question are not in {annotations}; the files must be of the same split")
        found.append(_question(entry, prompt, line.text("image")))
    return found


def _ocr_tokens(path: str | None) -> Mapping[str, Entry]:
    if path is None:
        return {}
    return {entry.identifier("image_id"): entry for entry in section(path, read_object(path), "data")}


def _prompt(entry: Entry, tokens: Mapping[str, Entry]) -> str:
    question = entry.text("question")
    lines = [question[:1].upper() + question[1:]]
    holder = entry if "ocr_tokens" in entry.values else tokens.get(entry.identifier("image_id"))
    if holder is not None:
        lines.append(OCR_LINE + ", ".join(holder.texts("ocr_tokens")))
    return "\n".join([*lines, SHORT_SENTENCE])


def _question(entry: Entry, prompt: str, image: str | None = None) -> Question:
    image_id = entry.identifier("image_id")
    return Question(
        question_id=entry.identifier("question_id"),
        turns=user_turn(prompt),
        images=(image or f"{image_id}.jpg",),
        answers=annotator_answers(entry) if "answers" in entry.values else (),
        cluster=image_id,
    )


FORMAT = TextVqaFormat()
