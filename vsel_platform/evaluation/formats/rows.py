"""Held-out rows of a data set, LLaVA JSON: every answer of a conversation is a question, with the right turns before.

Option `task_column`: key of a row that names its task (default `task`). Metrics: exact match of all answers and per
task. llava and official: the same text but for blanks at the ends; robust: also the same after the normalisation of
VQA answers (case, punctuation, articles, number words).

A row's questions have the identity `<row>#<turn>`; a row's identity is its `id`, with its position where that repeats.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from vsel_platform.errors import DataError
from vsel_platform.evaluation.benchmark import (
    BenchmarkFiles,
    BenchmarkFormat,
    Compat,
    Judgement,
    Measure,
    OptionKind,
    Question,
    image_cluster,
    mean_measures,
)
from vsel_platform.evaluation.vqa_normalise import normalise_answer

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
IMAGE_TAG = "<image>"


class RowsFormat(BenchmarkFormat):
    """Held-out rows (`evaluation.benchmark.BenchmarkFormat`)."""

    name = "rows"
    compats: tuple[Compat, ...] = ("llava", "official", "robust")
    headline = "exact_match"
    max_new_tokens = 64
    options: Mapping[str, OptionKind] = {"task_column": "text"}

    def read(self, files: BenchmarkFiles) -> list[Question]:
        """Questions in the order of the file; rows without an answer have none."""
        rows = _rows(files.questions)
        column = str(files.options.get("task_column", "task"))
        seen: dict[str, int] = {}
        questions: list[Question] = []
        for position, row in enumerate(rows):
            name = str(row.get("id", position))
            seen[name] = seen.get(name, 0) + 1
            identity = name if seen[name] == 1 else f"{name}@{position}"
            questions += _questions(
                row, identity, str(row.get(column) or "default"), f"{files.questions}: row {position}"
            )
        return questions

    def judge(self, questions: Sequence[Question], texts: Sequence[str | None], compat: Compat) -> list[Judgement]:
        """1 for an exact answer."""
        return [
            _judged(question, text, robust=compat == "robust") for question, text in zip(questions, texts, strict=True)
        ]

    def measures(self, questions: Sequence[Question], judgements: Sequence[Judgement], compat: Compat) -> list[Measure]:
        """Exact match of all answers and per task [percent]."""
        return mean_measures(self.headline, questions, judgements)

    def upload(self, questions: Sequence[Question], texts: Sequence[str | None]) -> dict[str, bytes]:
        """Nothing: the right answers are known."""
        return {}


FORMAT = RowsFormat()


def _rows(path: str) -> list[Mapping[str, Any]]:
    try:
        found = orjson.loads(Path(path).read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give the path of a JSON list of rows") from error
    except orjson.JSONDecodeError as error:
        raise DataError(f"{path}: no valid JSON ({error}); mend line {error.lineno}") from error
    if not isinstance(found, list):
        raise DataError(f"{path}: held-out rows are a JSON list of objects with `conversations`")
    for position, row in enumerate(found):
        if not isinstance(row, dict):
            raise DataError(f"{path}: row {position} is no object with `conversations`; mend it")
    return found


def _questions(row: Mapping[str, Any], identity: str, task: str, where: str) -> list[Question]:
    turns = [_turn(turn, where) for turn in row.get("conversations") or ()]
    images = _images(row)
    if sum(text.count(IMAGE_TAG) for _, text in turns) != len(images):
        raise DataError(f"{where}: {len(images)} images, but another number of {IMAGE_TAG} tags in its turns; mend it")
    return [
        Question(
            question_id=f"{identity}#{number}",
            turns=tuple(turns[:number]),
            images=images,
            answers=(text.strip(),),
            cluster=image_cluster(images[:1]) or identity,
            category=task,
        )
        for number, (role, text) in enumerate(turns)
        if role == "assistant" and text.strip() and number
    ]


def _turn(turn: Any, where: str) -> tuple[str, str]:
    speaker, text = (turn.get("from"), turn.get("value")) if isinstance(turn, Mapping) else (None, None)
    if speaker not in ROLES or not isinstance(text, str):
        raise DataError(f"{where}: a turn needs `from` (human or gpt) and a text in `value`; mend it")
    return ROLES[speaker], text


def _images(row: Mapping[str, Any]) -> tuple[str, ...]:
    found = row.get("images", row.get("image")) or ()
    return (found,) if isinstance(found, str) else tuple(found)


def _judged(question: Question, text: str | None, *, robust: bool) -> Judgement:
    if text is None:
        return Judgement(None, 0.0)
    (right,) = question.answers
    same = text.strip() == right or (robust and normalise_answer(text) == normalise_answer(right))
    return Judgement(text.strip(), float(same))
