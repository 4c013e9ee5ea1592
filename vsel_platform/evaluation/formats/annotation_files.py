"""Annotation files: JSON, JSON lines and tables, with errors that say where in the file a problem is.

A published file that is damaged is to be had again; one of your own (`own`) is to be mended in that line.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vsel_platform.errors import DataError
from vsel_platform.evaluation.benchmark import Question

UNCHANGED = "use the published file unchanged"
_SPACE = re.compile(r"\s*")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of an annotation file; `place` names it within the file, `remedy` says what mends a wrong value."""

    path: str
    place: str
    values: Mapping[str, Any]
    remedy: str = UNCHANGED

    def error(self, problem: str) -> DataError:
        """DataError that names file and entry."""
        return DataError(f"{self.path}, {self.place}: {problem}")

    def text(self, key: str) -> str:
        """A string. Raises DataError if it is absent or something else."""
        value = self.values.get(key)
        if not isinstance(value, str):
            raise self.error(f"{key!r} is {value!r}, not a text; {self.remedy}")
        return value

    def identifier(self, key: str) -> str:
        """A string, or an integer as a string. Raises DataError for anything else."""
        value = self.values.get(key)
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise self.error(f"{key!r} is {value!r}, neither text nor integer; {self.remedy}")
        return str(value)

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings. Raises DataError for anything else."""
        value = self.values.get(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.error(f"{key!r} is not a list of texts; {self.remedy}")
        return tuple(value)

    def index(self, key: str, n: int) -> int:
        """An integer in 0 .. n - 1. Raises DataError for anything else."""
        value = self.values.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < n:
            raise self.error(f"{key!r} is {value!r}, not an index into {n} options; {self.remedy}")
        return value


def read_text(path: str | Path, *, own: bool = False) -> str:
    """A whole file. Raises DataError if it cannot be read as UTF-8."""
    try:
        return Path(path).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error, own=own) from error


def first_character(path: str | Path) -> str:
    """The first character of a text file that is no blank, "" if there is none. Raises DataError as `read_text`."""
    try:
        with Path(path).open(encoding="utf-8-sig") as file:
            return next((line.strip()[0] for line in iter(lambda: file.readline(4096), "") if line.strip()), "")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str | Path, error: Exception, *, own: bool = False) -> DataError:
    if own and isinstance(error, UnicodeDecodeError):
        return DataError(f"{path}: cannot be read ({error}); save it as UTF-8")
    return DataError(f"{path}: cannot be read ({error}); give the path of {'a' if own else 'the published'} file")


def read_json(path: str | Path) -> Any:
    """Content of a JSON file. Raises DataError with the position of a syntax error."""
    content = read_text(path)
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        raise _invalid(path, error, error.lineno, own=False) from error


def read_entries(path: str | Path, *, own: bool = False) -> list[Entry]:
    """Objects of a JSON list, or objects one after another with or without line breaks.

    They are numbered from 1; objects of an `own` file that is no list are named by the lines that they begin in.
    Raises DataError for other content.
    """
    content = read_text(path, own=own)
    if content.lstrip().startswith("["):
        found = [(f"entry {number}", value) for number, value in enumerate(_list(path, content, own=own), start=1)]
    else:
        objects = enumerate(_objects(path, content, own=own), start=1)
        found = [(f"line {line}" if own else f"entry {number}", value) for number, (line, value) in objects]
    for place, value in found:
        if not isinstance(value, dict):
            raise DataError(f"{path}, {place}: not an object; {_remedy(place, own=own)}")
    if not found:
        raise DataError(
            f"{path}: holds no entries; {'write one per line' if own else 'download the published file again'}"
        )
    return [Entry(str(path), place, value, _remedy(place, own=own)) for place, value in found]


def _remedy(place: str, *, own: bool) -> str:
    return f"mend {place}" if own else UNCHANGED


def _list(path: str | Path, content: str, *, own: bool) -> list[Any]:
    try:
        found: list[Any] = json.loads(content)
    except json.JSONDecodeError as error:
        raise _invalid(path, error, error.lineno, own=own) from error
    return found


def _objects(path: str | Path, content: str, *, own: bool) -> Iterator[tuple[int, Any]]:
    """(line that it begins in, value) of every object."""
    decoder, position, line, counted = json.JSONDecoder(), 0, 1, 0
    while (start := _SPACE.match(content, position)) and (position := start.end()) < len(content):
        line, counted = line + content.count("\n", counted, position), position
        try:
            value, position = decoder.raw_decode(content, position)
        except json.JSONDecodeError as error:
            raise _invalid(path, error, line, own=own) from error
        yield line, value


def _invalid(path: str | Path, error: json.JSONDecodeError, line: int, *, own: bool) -> DataError:
    """Error of an entry that begins in `line`."""
    lines = f"line {line}" if line == error.lineno else f"lines {line} to {error.lineno}"
    return DataError(
        f"{path}: no valid JSON ({error}); {f'mend {lines}' if own else 'download the published file again'}"
    )


def check_unique(path: str | Path, questions: Sequence[Question]) -> list[Question]:
    """`questions` as a list. Raises DataError if two have the same id."""
    seen: set[str] = set()
    for question in questions:
        if question.question_id in seen:
            raise DataError(f"{path}, question {question.question_id}: stands twice; remove one of the entries")
        seen.add(question.question_id)
    return list(questions)
