"""What the free-text benchmarks have in common: checks of their files, splits of a metric, upload files."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vsel_platform.errors import ConfigError, DataError
from vsel_platform.evaluation.benchmark import Compat, Judgement, Measure, Question, ratio_measure
from vsel_platform.evaluation.formats.annotation_files import Entry, check_unique, read_json


def read_object(path: str) -> dict[str, Any]:
    """The object that a JSON file holds. Raises DataError for other content."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}, not an object; use the published file unchanged")
    return content


def section(path: str, content: Mapping[str, Any], key: str) -> list[Entry]:
    """Entries of the list `content[key]`, numbered from 1. Raises DataError if it is not a list of objects."""
    values = content.get(key)
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise DataError(f"{path}: {key!r} is not a list of objects; use the published file unchanged")
    return [Entry(path, f"{key} entry {number}", value) for number, value in enumerate(values, start=1)]


def all_questions(path: str, questions: Sequence[Question]) -> list[Question]:
    """`questions` as a list. Raises DataError if there is none or two have the same id."""
    if not questions:
        raise DataError(f"{path}: holds no question; use the published file unchanged")
    return check_unique(path, questions)


def annotator_answers(entry: Entry) -> tuple[str, ...]:
    """Texts of `answers`, a list of `{answer: text}` or of texts. Raises DataError for anything else or none."""
    values = entry.values.get("answers")
    found = [item.get("answer") if isinstance(item, dict) else item for item in values or ()]
    if not found or not all(isinstance(item, str) for item in found):
        raise entry.error("'answers' is not a list of answers; use the published file unchanged")
    return tuple(str(item) for item in found)


def require_compat(name: str, compat: Compat, compats: Sequence[Compat]) -> None:
    """Raises ConfigError if a benchmark does not offer this way of judging."""
    if compat not in compats:
        raise ConfigError(f"{name}: compat {compat!r} is not offered; choose one of {', '.join(compats)}")


def unanswered(question: Question) -> Judgement:
    """Judgement of a missing answer: wrong where the right one is known."""
    return Judgement(None, 0.0 if question.answers else None)


def split_measures(
    name: str, questions: Sequence[Question], judgements: Sequence[Judgement], key: str
) -> list[Measure]:
    """Mean score in percent for every value of `question.extra[key]`, sorted; the value is the measure's group."""
    known = np.array([judgement.score is not None for judgement in judgements], dtype=np.float64)
    scores = np.array([judgement.score or 0.0 for judgement in judgements], dtype=np.float64)
    values = np.array([str(question.extra.get(key, "")) for question in questions], dtype=object)
    found = []
    for value in sorted(set(values) - {""}, key=lambda text: (len(text), text) if text.isdigit() else (0, text)):
        inside = known * (values == value)
        found.append(ratio_measure(name, scores * inside, inside, group=value))
    return found


def to_json(value: Any) -> bytes:
    """Upload file as JSON in UTF-8."""
    return json.dumps(value, ensure_ascii=False).encode()
