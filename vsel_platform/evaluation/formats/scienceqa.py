"""ScienceQA: school questions with two to five options, about half of the test questions with an image.

Source: benchmark specification, section 5.6; LLaVA's `model_vqa_science.py` and `eval_science_qa.py`.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

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
    ratio_measure,
)
from vsel_platform.evaluation.formats.annotation_files import (
    Entry,
    check_unique,
    first_character,
    read_entries,
    read_json,
)
from vsel_platform.evaluation.formats.choices import LETTER_SENTENCE, LETTERS, letter_of, read_option, user_turn
from vsel_platform.evaluation.formats.scienceqa_prompts import llava_record

N_OPTIONS = 5
_STATED = re.compile(r"The answer is ([A-Z]).")


class ScienceQa(BenchmarkFormat):
    """ScienceQA with LLaVA's CQM-A prompts.

    "llava" and "official" are the same: `parse_answer`. "robust" reads the option out of a longer answer. A question
    without an answer is wrong, one with an image in `accuracy_image` too (LLaVA's script leaves it out there).
    """

    name = "scienceqa"
    compats: tuple[Compat, ...] = ("llava", "official", "robust")
    headline = "accuracy"
    max_new_tokens = 1024
    options: Mapping[str, OptionKind] = {"split": "text"}
    takes_annotations = True

    def files(self, files: BenchmarkFiles) -> list[str]:
        """The questions, and the split or the problems that belong to them.

        Raises DataError if LLaVA's file is given without annotations.
        """
        if first_character(files.questions) == "{":
            return [files.questions, files.annotations or str(Path(files.questions).parent / "pid_splits.json")]
        if files.annotations is None:
            raise DataError(f"{files.questions}: needs the annotations; give the directory with problems.json")
        return [files.questions, str(Path(files.annotations) / "problems.json")]

    def read(self, files: BenchmarkFiles) -> list[Question]:
        """Questions of `problems.json`, or of LLaVA's `llava_test_CQM-A.json`.

        With `problems.json` the ids come from `pid_splits.json` beside it (or given as annotations), option `split`
        (default test). LLaVA's file needs annotations, the directory with `problems.json`. Raises DataError for a
        wrong file.
        """
        _, path = self.files(files)
        content = read_json(files.questions)
        if isinstance(content, dict):
            chosen = _split(path, str(files.options.get("split", "test")))
            asked = [(problem_id, _entry(files.questions, content, problem_id)) for problem_id in chosen]
            found = [_question(entry, llava_record(problem_id, entry.values)) for problem_id, entry in asked]
            return check_unique(files.questions, found)
        problems = read_json(path)
        if not isinstance(problems, dict):
            raise DataError(f"{path}: is no table of problems; use the published file")
        records = read_entries(files.questions)
        found = [_question(_entry(path, problems, line.identifier("id")), _record(line)) for line in records]
        return check_unique(files.questions, found)

    def judge(self, questions: Sequence[Question], texts: Sequence[str | None], compat: Compat) -> list[Judgement]:
        """The option letter that was read, right if it is that of the answer; None where there is no such option."""
        found = []
        for question, text in zip(questions, texts, strict=True):
            letters = LETTERS[: len(question.choices)]
            exact = parse_answer(text) if text is not None else None
            parsed = read_option(text, question.choices) if compat == "robust" else exact
            parsed = parsed if parsed is not None and parsed in letters else None
            found.append(Judgement(parsed, float(parsed == question.answers[0])))
        return found

    def measures(self, questions: Sequence[Question], judgements: Sequence[Judgement], compat: Compat) -> list[Measure]:
        """`accuracy` of all and of every subject, `accuracy_image` of the questions with an image [percent]."""
        scores = np.array([judgement.score or 0.0 for judgement in judgements], dtype=np.float64)
        shown = np.array([bool(question.images) for question in questions], dtype=np.float64)
        found = mean_measures("accuracy", questions, judgements)
        return [found[0], ratio_measure("accuracy_image", scores * shown, shown), *found[1:]]

    def upload(self, questions: Sequence[Question], texts: Sequence[str | None]) -> dict[str, bytes]:
        """Nothing: the answers are public."""
        return {}


def parse_answer(text: str) -> str | None:
    """Letter of an answer, which may be beyond the question's options; None if it cannot be read.

    Read are a letter A to E alone, one before ". ", and a single "The answer is X." where the period is any character.
    """
    letters = LETTERS[:N_OPTIONS]
    if len(text) == 1 and text in letters:
        return text
    if text[:1] and text[0] in letters and text[1:3] == ". ":
        return text[0]
    stated = _STATED.findall(text)
    return stated[0] if len(stated) == 1 else None


def _split(path: str, name: str) -> list[str]:
    splits = read_json(path)
    if not isinstance(splits, dict) or not isinstance(splits.get(name), list):
        raise DataError(f"{path}: has no split {name!r}; give pid_splits.json and one of its splits")
    return [str(problem_id) for problem_id in splits[name]]


def _entry(path: str, problems: Mapping[str, Any], problem_id: str) -> Entry:
    values = problems.get(problem_id)
    entry = Entry(path, f"problem {problem_id}", values if isinstance(values, dict) else {})
    if not entry.values:
        raise entry.error("is not there; give the problems.json that belongs to the list of ids")
    entry.text("question")
    entry.index("answer", len(entry.texts("choices")))
    if len(entry.texts("choices")) > N_OPTIONS:
        raise entry.error(f"has more than {N_OPTIONS} options; use the published file unchanged")
    return entry


def _record(line: Entry) -> dict[str, Any]:
    turns = line.values.get("conversations")
    human = turns[0] if isinstance(turns, list) and turns and isinstance(turns[0], dict) else {}
    if not isinstance(human.get("value"), str):
        raise line.error("'conversations' begins with no text; use LLaVA's llava_test_CQM-A.json unchanged")
    return {**line.values, "id": line.identifier("id")}


def _question(entry: Entry, record: Mapping[str, Any]) -> Question:
    image = record.get("image")
    text = str(record["conversations"][0]["value"]).replace("<image>", "").strip()
    return Question(
        question_id=str(record["id"]),
        turns=user_turn(f"{text}\n{LETTER_SENTENCE}", image=bool(image)),
        images=(str(image),) if image else (),
        answers=(letter_of(entry.values["answer"]),),
        cluster=str(record["id"]),
        choices=entry.texts("choices"),
        category=str(entry.values.get("subject") or ""),
    )


FORMAT = ScienceQa()
