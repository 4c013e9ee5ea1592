"""ShareGPT data around the released ScalSelect: messages for the processor, selection by score, validity of images.

Specification: commit 74375d3 of the released code (specification B1.1, B1.2, B1.6).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vsel_platform.errors import DataError

Entry = dict[str, Any]
Message = dict[str, Any]
ModelType = Literal["llava", "qwen"]
TAGS = ("<image>", "<img>")


def convert_messages(
    messages: Sequence[Mapping[str, str]], n_images: int, *, model_type: ModelType = "llava"
) -> list[Message]:
    """Messages for `apply_chat_template`: image items first in the first user turn, whose tags are removed.

    Tags of later or interleaved images thus lose their place. Without images the tags stay. For "llava" every other
    turn becomes a list with one text item and a turn without text is dropped; for "qwen" it stays a plain text.
    """
    converted: list[Message] = []
    images_left = n_images
    for message in messages:
        text = message["content"]
        if images_left and message["role"] == "user":
            for tag in TAGS:
                text = text.replace(tag, "")
            items = [{"type": "image"} for _ in range(images_left)]
            converted.append({"role": "user", "content": items + _text_items(text.strip())})
            images_left = 0
        elif model_type == "qwen":
            converted.append({"role": message["role"], "content": text})
        elif text:
            converted.append({"role": message["role"], "content": _text_items(text)})
    return converted


def importance_lines(scores: Sequence[tuple[int, float]]) -> str:
    """The score file: one line `{"sample_id", "importance"}` per score, in the order given."""
    return "".join(json.dumps({"sample_id": i, "importance": value}) + "\n" for i, value in scores)


def select_sharegpt(
    score_lines: Iterable[str], entries: Sequence[Entry], n_selected: int | None = None
) -> tuple[list[Entry], list[Any]]:
    """(entries of the first `n_selected` ids of a score file, sorted by id; ids that no entry has).

    None takes all ids. Of entries with the same id the last is taken; ids must agree in type too, so entries with
    text ids are never found; fewer than `n_selected` entries come out if ids are not found. Raises DataError for a
    line that is no score.
    """
    ids = _ids_of(score_lines)[:n_selected]
    by_id = {entry["id"]: entry for entry in entries if entry.get("id") is not None}
    found = [by_id[i] for i in ids if i in by_id]
    return sorted(found, key=lambda entry: entry["id"]), [i for i in ids if i not in by_id]


def to_sharegpt_json(entries: Sequence[Entry]) -> str:
    """JSON as the released scripts write it: indent 2, characters as they are."""
    return json.dumps(entries, indent=2, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class FilterStats:
    """What `filter_valid_samples` kept and dropped."""

    input_total: int
    output_total: int
    skipped_no_images: int
    skipped_missing_files: int
    skipped_total: int


@dataclass(frozen=True, slots=True)
class ValidityCheck:
    """Entries by validity; `details`: per reason the ids, or the 0-based positions of entries without an id."""

    total: int
    valid: int
    invalid: int
    details: dict[str, list[Any]]


def filter_valid_samples(entries: Sequence[Entry], base_path: str) -> tuple[list[Entry], FilterStats]:
    """Entries that have images, all of which exist; an entry without id is kept.

    `base_path` is put in front of names that do not begin with "/", without a separator.
    """
    problems = [_image_problem(entry, base_path) for entry in entries]
    kept = [entry for entry, problem in zip(entries, problems, strict=True) if problem is None]
    return kept, FilterStats(
        input_total=len(entries),
        output_total=len(kept),
        skipped_no_images=problems.count("no_images_field"),
        skipped_missing_files=problems.count("missing_image_files"),
        skipped_total=len(entries) - len(kept),
    )


def check_dataset_validity(entries: Sequence[Entry], base_path: str) -> ValidityCheck:
    """Count entries with an id and images that all exist; each other entry has one reason, a missing id first.

    `base_path` as for `filter_valid_samples`, which judges an entry without id otherwise.
    """
    details: dict[str, list[Any]] = {"no_images_field": [], "no_id": [], "missing_image_files": []}
    for position, entry in enumerate(entries):
        if entry.get("id") is None:
            details["no_id"].append(position)
        elif problem := _image_problem(entry, base_path):
            details[problem].append(entry["id"])
    invalid = sum(len(found) for found in details.values())
    return ValidityCheck(len(entries), len(entries) - invalid, invalid, details)


def _text_items(text: str) -> list[Message]:
    return [{"type": "text", "text": text}] if text else []


def _ids_of(score_lines: Iterable[str]) -> list[Any]:
    ids = []
    for number, line in enumerate(score_lines, start=1):
        if not line.strip():
            continue
        try:
            score = json.loads(line)
            if "metadata" not in score:
                ids.append(score["sample_id"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"line {number} of the score file is no score: {line.strip()[:80]}") from error
    return ids


def _image_problem(entry: Entry, base_path: str) -> str | None:
    """Why the images cannot be used; None if all exist."""
    images = entry.get("images")
    names = [images] if isinstance(images, str) and images else images
    if not names:
        return "no_images_field"
    paths = (Path(name if name.startswith("/") else base_path + name) for name in names)
    return None if all(path.exists() for path in paths) else "missing_image_files"
