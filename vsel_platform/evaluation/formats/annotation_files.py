"""Published annotation files: JSON, JSON lines and tables, with errors that say where in the file a problem is."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vsel_platform.errors import DataError
from vsel_platform.evaluation.benchmark import Question

_SPACE = re.compile(r"\s*")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of an annotation file; `place` names it within the file."""

    path: str
    place: str
    values: Mapping[str, Any]

    def error(self, problem: str) -> DataError:
        """DataError that names file and entry."""
        return DataError(f"{self.path}, {self.place}: {problem}")

    def text(self, key: str) -> str:
        """A string. Raises DataError if it is absent or something else."""
        value = self.values.get(key)
        if not isinstance(value, str):
            raise self.error(f"{key!r} is {value!r}, not a text; use the published file unchanged")
        return value

    def identifier(self, key: str) -> str:
        """A string, or an integer as a string. Raises DataError for anything else."""
        value = self.values.get(key)
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise self.error(f"{key!r} is {value!r}, neither text nor integer; use the published file unchanged")
        return str(value)

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings. Raises DataError for anything else."""
        value = self.values.get(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.error(f"{key!r} is not a list of texts; use the published file unchanged")
        return tuple(value)

    def index(self, key: str, n: int) -> int:
        """An integer in 0 .. n - 1. Raises DataError for anything else."""
        value = self.values.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < n:
            raise self.error(f"{key!r} is {value!r}, not an index into {n} options; use the published file unchanged")
        return value


def read_text(path: str | Path) -> str:
    """A whole file. Raises DataError if it cannot be read as UTF-8."""
    try:
        return Path(path).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error


def first_character(path: str | Path) -> str:
    """The first character of a text file that is no blank, "" if there is none. Raises DataError as `read_text`."""
    try:
        with Path(path).open(encoding="utf-8-sig") as file:
            return next((line.strip()[0] for line in iter(lambda: file.readline(4096), "") if line.strip()), "")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str | Path, error: Exception) -> DataError:
    return DataError(f"{path}: cannot be read ({error}); give the path of the published file")


def read_json(path: str | Path) -> Any:
    """Content of a JSON file. Raises DataError with the position of a syntax error."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: no valid JSON ({error}); download the published file again") from error


def read_entries(path: str | Path) -> list[Entry]:
    """Objects of a JSON list, or objects one after another with or without line breaks, numbered from 1.

    Raises DataError for other content.
    """
    content = read_text(path)
    values = read_json(path) if content.lstrip().startswith("[") else list(_objects(path, content))
    for number, value in enumerate(values, start=1):
        if not isinstance(value, dict):
            raise DataError(f"{path}, entry {number}: not an object; use the published file unchanged")
    if not values:
        raise DataError(f"{path}: holds no entries; download the published file again")
    return [Entry(str(path), f"entry {number}", value) for number, value in enumerate(values, start=1)]


def _objects(path: str | Path, content: str) -> Iterator[Any]:
    decoder, position = json.JSONDecoder(), 0
    while (start := _SPACE.match(content, position)) and (position := start.end()) < len(content):
        try:
            value, position = decoder.raw_decode(content, position)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}: no valid JSON ({error}); download the published file again") from error
        yield value


def check_unique(path: str | Path, questions: Sequence[Question]) -> list[Question]:
    """`questions` as a list. Raises DataError if two have the same id."""
    seen: set[str] = set()
    for question in questions:
        if question.question_id in seen:
            raise DataError(f"{path}, question {question.question_id}: stands twice; remove one of the entries")
        seen.add(question.question_id)
    return list(questions)
