"""MMBench in the table of 2023-07-12: every rotation of the options of a question is a row of its own.

A question counts as right only if all its rotations are (circular evaluation). Source: benchmark specification,
section 5.2; LLaVA's `model_vqa_mmbench.py` and `convert_mmbench_for_submission.py`; VLMEvalKit's circular evaluation.
"""

import csv
import io
import sys
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from vsel_platform.errors import DataError
from vsel_platform.evaluation.benchmark import (
    BenchmarkFiles,
    BenchmarkFormat,
    Compat,
    Judgement,
    Measure,
    Question,
    image_cluster,
    ratio_measure,
)
from vsel_platform.evaluation.formats.annotation_files import Entry, check_unique, read_text
from vsel_platform.evaluation.formats.choices import (
    LETTER_SENTENCE,
    lettered,
    match_option,
    read_option,
    user_turn,
)
from vsel_platform.evaluation.formats.spreadsheet import workbook

ROTATION = 1_000_000
COLUMNS = ("A", "B", "C", "D")
_NOT_UPLOADED = {"hint", "category", "source", "image", "comment", "l2-category"}
_PREDICTION_COLUMN = 6
_LONGEST_REFERENCE = 64
_MEDIA_TYPES = {"/9j/": "image/jpeg", "iVBOR": "image/png", "R0lGOD": "image/gif", "UklGR": "image/webp"}
# What pandas reads as missing, which LLaVA's and VLMEvalKit's scripts rely on.
_MISSING = {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL"}
_MISSING_LOWER = {"nan", "-nan", "none", "n/a", "null"}


class MMBench(BenchmarkFormat):
    """MMBench with rotations as rows.

    All three compats match answers in the same way, that of VLMEvalKit without a judge model: LLaVA itself only
    uploads. "llava" and "official" give "Z" for a refusal, "robust" None, and it accepts a lower-case letter alone.
    """

    name = "mmbench"
    compats: tuple[Compat, ...] = ("llava", "official", "robust")
    headline = "circular_accuracy"
    max_new_tokens = 1024

    def read(self, files: BenchmarkFiles) -> list[Question]:
        """Rows of the TSV. An image cell of up to 64 characters is the index of the row that holds the image.

        As in LLaVA's script options end at the first missing one, and texts such as "None" or "nan" are missing.
        Raises DataError for a wrong file.
        """
        entries = _rows(files.questions)
        by_index = {entry.values["index"]: entry for entry in entries}
        return check_unique(files.questions, [_question(entry, by_index) for entry in entries])

    def judge(self, questions: Sequence[Question], texts: Sequence[str | None], compat: Compat) -> list[Judgement]:
        """Judgement of every row for itself."""
        found = []
        for question, text in zip(questions, texts, strict=True):
            if compat == "robust":
                parsed = read_option(text, question.choices)
            else:
                parsed = None if text is None else match_option(text, question.choices)
            found.append(Judgement(parsed, float(parsed == question.answers[0]) if question.answers else None))
        return found

    def measures(self, questions: Sequence[Question], judgements: Sequence[Judgement], compat: Compat) -> list[Measure]:
        """`circular_accuracy` of all, of the l2-categories and of the categories; `row_accuracy` of all [percent].

        A question stands in its row without rotation, or in its first one.
        """
        right, known, first = _groups(questions, judgements)
        name = self.headline
        found = [ratio_measure(name, right, known)]
        for key in ("l2_category", "category"):
            names = np.array([_category(questions[row], key) for row in first], dtype=object)
            for category in sorted(set(names) - {""}):
                inside = known * (names == category)
                found.append(ratio_measure(name, right * inside, inside, group=category))
        scored = np.array([judgement.score is not None for judgement in judgements], dtype=np.float64)
        scores = np.array([judgement.score or 0.0 for judgement in judgements], dtype=np.float64)
        return [*found, ratio_measure("row_accuracy", scores, scored)]

    def upload(self, questions: Sequence[Question], texts: Sequence[str | None]) -> dict[str, bytes]:
        """The server's workbook: index, question, options, prediction, answer, split ...; one row per question.

        The columns are those of LLaVA's `convert_mmbench_for_submission.py`. Missing cells and answers are empty.
        """
        columns = [column for column in questions[0].extra["row"] if column != "prediction"] if questions else []
        columns.insert(_PREDICTION_COLUMN, "prediction")
        rows = []
        for question, text in zip(questions, texts, strict=True):
            found = {key: None if is_missing(value) else value for key, value in question.extra["row"].items()}
            found |= {"index": int(question.question_id), "prediction": text or None}
            rows.append([found[column] for column in columns])
        return {"mmbench.xlsx": workbook(columns, rows)}


def is_missing(value: str | None) -> bool:
    """Whether a cell counts as empty."""
    return value is None or value in _MISSING or value.lower() in _MISSING_LOWER


def _rows(path: str) -> list[Entry]:
    limit = csv.field_size_limit(sys.maxsize)
    try:
        reader = csv.DictReader(io.StringIO(read_text(path), newline=""), delimiter="\t")
        lines = list(reader)
    except csv.Error as error:
        raise DataError(f"{path}: no valid table ({error}); download the published TSV again") from error
    finally:
        csv.field_size_limit(limit)
    missing = {"index", "question", "image", "A", "B"} - set(reader.fieldnames or ())
    if missing or not lines:
        problem = f"has no column {', '.join(sorted(missing))}" if missing else "has no rows"
        raise DataError(f"{path}: {problem}; use the published TSV of MMBench")
    return [Entry(path, f"row {number}", line) for number, line in enumerate(lines, start=1)]


def _question(entry: Entry, by_index: Mapping[str, Entry]) -> Question:
    index = entry.text("index")
    if not index.isdecimal():
        raise entry.error(f"'index' is {index!r}, not an integer; use the published file unchanged")
    choices = _choices(entry)
    answer = entry.values.get("answer")
    if not is_missing(answer) and answer not in COLUMNS[: len(choices)]:
        raise entry.error(f"'answer' {answer!r} is not the letter of an option; use the published file unchanged")
    base = str(int(index) % ROTATION)
    image = _image(entry, by_index)
    shown = _image(by_index[base], by_index) if base in by_index else image
    return Question(
        question_id=index,
        turns=user_turn(f"{prompt(entry.text('question'), entry.values.get('hint'), choices)}\n{LETTER_SENTENCE}"),
        images=(image,),
        answers=() if is_missing(answer) else (str(answer),),
        cluster=image_cluster((shown,)),
        choices=choices,
        category="" if is_missing(entry.values.get("category")) else entry.text("category"),
        extra={
            "base": base,
            "l2_category": "" if is_missing(entry.values.get("l2-category")) else entry.text("l2-category"),
            "row": {key: value for key, value in entry.values.items() if key and key not in _NOT_UPLOADED},
        },
    )


def prompt(question: str, hint: str | None, choices: Sequence[str]) -> str:
    """Hint if there is one, question and lettered options, without the closing sentence."""
    return "\n".join([*([] if is_missing(hint) else [str(hint)]), question, lettered(choices)])


def _choices(entry: Entry) -> tuple[str, ...]:
    found: list[str] = []
    for column in COLUMNS:
        value = entry.values.get(column)
        if is_missing(value):
            break
        found.append(str(value))
    if len(found) < 2:
        raise entry.error("has fewer than two options; use the published file unchanged")
    return tuple(found)


def _image(entry: Entry, by_index: Mapping[str, Entry]) -> str:
    data = entry.text("image")
    if len(data) <= _LONGEST_REFERENCE:
        if data not in by_index:
            raise entry.error(f"'image' is neither base64 data nor the index of a row ({data!r}); download it again")
        data = by_index[data].text("image")
    media_type = next((name for start, name in _MEDIA_TYPES.items() if data.startswith(start)), None)
    if media_type is None:
        raise entry.error(f"'image' begins with {data[:8]!r}, no JPEG, PNG, GIF or WebP in base64; download it again")
    return f"data:{media_type};base64,{data}"


def _groups(
    questions: Sequence[Question], judgements: Sequence[Judgement]
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[int]]:
    """Right and known, float64 [rows], set in one row of each group; and for every row the row of its group."""
    rows: dict[str, list[int]] = {}
    for row, question in enumerate(questions):
        rows.setdefault(question.extra["base"], []).append(row)
    right, known = np.zeros(len(questions)), np.zeros(len(questions))
    first = [0] * len(questions)
    for base, members in rows.items():
        place = next((row for row in members if questions[row].question_id == base), members[0])
        scores = [judgements[row].score for row in members]
        known[place] = all(score is not None for score in scores)
        right[place] = known[place] * all(score == 1.0 for score in scores)
        for row in members:
            first[row] = place
    return right, known, first


def _category(question: Question, key: str) -> str:
    return question.category if key == "category" else str(question.extra["l2_category"])


FORMAT = MMBench()
