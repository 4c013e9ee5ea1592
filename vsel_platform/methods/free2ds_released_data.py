"""Data preparation of the released Free2DS: ids, chunk files, one-word prompts, human turns.

Specification: C1.1, C1.2 and C1.5 of commit 9b9afe0 of the released code. Files are read and written entry by entry,
so their size does not matter.
"""

import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from vsel_platform.errors import DataError
from vsel_platform.models.templates import IMAGE_TAG, load_template

Entry = dict[str, Any]
Turn = Mapping[str, str]
Mode = Literal["default", "released"]

ONE_WORD_SUFFIX = " Please answer the question using a single word or phrase."
_VICUNA = load_template("vicuna_v1")
# The two released scripts differ in one word of the system text.
TEMPLATES = {
    "llava_v1": replace(
        _VICUNA,
        name="llava_v1",
        system="A chat between a curious human and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the human's questions.",
    ),
    "vicuna_v1": _VICUNA,
}


def add_unique_id(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Every entry with its 1-based position as `unique_id`: in place of an old one, else as the last key."""
    return ({**entry, "unique_id": number} for number, entry in enumerate(entries, start=1))


def write_with_unique_id(source: Path, target: Path) -> int:
    """`add_unique_id` from file to file (indent 2, ASCII); returns the number of entries.

    Source and target may be the same file. Raises DataError if the source is no JSON array.
    """
    return write_entries(target, add_unique_id(read_entries(source)), indent=2)


def split_into_chunks(source: Path, directory: Path, n_splits: int, *, mode: Mode = "default") -> list[Path]:
    """Write `n_splits` files chunk_1.json, ... of ceil(n / n_splits) consecutive entries (indent 4, ASCII).

    The last files may hold fewer entries or none (`[]`). Mode `released` stops at a number with a fraction or an
    exponent, as the released script does, which parses it as a Decimal that it cannot write. Raises DataError for
    that, for a source that is no JSON array, and for fewer than one split.
    """
    if n_splits < 1:
        raise DataError(f"n_splits is {n_splits}; give at least 1")
    per_chunk = math.ceil(sum(1 for _ in read_entries(source)) / n_splits)
    directory.mkdir(parents=True, exist_ok=True)
    entries = read_entries(source, decimals=mode == "released")
    files = [directory / f"chunk_{number}.json" for number in range(1, n_splits + 1)]
    for file in files:
        try:
            write_entries(file, itertools.islice(entries, per_chunk), indent=4)
        except TypeError as error:
            raise DataError(
                f"{source}: an entry of {file.name} holds a number with a fraction, which mode released cannot "
                f"write ({error}); split it in mode default"
            ) from error
    return files


def merge_chunks(directory: Path, target: Path, *, mode: Mode = "default") -> int:
    """Join the files `*chunk*.json` of a directory (indent 2, not ASCII); returns the number of entries.

    Names with `filter_stats` are left out. Files are joined by the numbers in their names; mode `released` joins
    them in lexical order, chunk_10 before chunk_2. Raises DataError if there is no such file or one is no JSON
    array (the released script leaves broken files out).
    """
    found = [f for f in directory.glob("*chunk*.json") if "filter_stats" not in f.name and f != target]
    if not found:
        raise DataError(f"{directory}: no file *chunk*.json; is this the directory of a split?")
    files = sorted(found) if mode == "released" else sorted(found, key=_by_number)
    entries = itertools.chain.from_iterable(read_entries(file) for file in files)
    return write_entries(target, entries, indent=2, ascii_only=False)


def _by_number(file: Path) -> list[tuple[int, str]]:
    return [(int(part) if part.isdigit() else -1, part) for part in re.split(r"([0-9]+)", file.name)]


def read_entries(source: Path, *, decimals: bool = False) -> Iterator[Entry]:
    """Elements of the JSON array in a file, one at a time; `decimals` keeps inexact numbers as Decimal.

    Raises DataError if there is no such file or it is no JSON array.
    """
    import ijson

    try:
        with source.open("rb") as file:
            if file.read(4096).lstrip()[:1] != b"[":
                raise DataError(f"{source}: does not begin with [; a JSON array of entries is needed")
            file.seek(0)
            yield from ijson.items(file, "item", use_float=not decimals)
    except FileNotFoundError as error:
        raise DataError(f"{source}: no such file") from error
    except ijson.JSONError as error:
        raise DataError(f"{source}: not valid JSON: {error}; repair or write it again") from error


def write_entries(target: Path, entries: Iterable[Entry], *, indent: int, ascii_only: bool = True) -> int:
    """Write a JSON array, byte for byte as `json.dump(list(entries), indent=indent)`; returns their number.

    The target appears when it is complete; until then a file beside it is written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    margin, count = "\n" + " " * indent, 0
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            for entry in entries:
                text = json.dumps(entry, indent=indent, ensure_ascii=ascii_only)
                file.write(("," if count else "[") + margin + text.replace("\n", margin))
                count += 1
            file.write("\n]" if count else "[]")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return count


def first_question(conversation: Sequence[Turn]) -> str:
    """Value of the first human or user turn that a gpt or assistant turn directly follows (roles in any case).

    Raises DataError if there is none; the released code stops there with an IndexError.
    """
    roles = [turn.get("from", "").lower() for turn in conversation]
    for turn, role, following in zip(conversation, roles, roles[1:], strict=False):
        if role in ("human", "user") and following in ("gpt", "assistant"):
            return turn["value"]
    raise DataError(f"none of {len(roles)} turns is a question with an answer behind it, so there is nothing to ask")


def one_word_message(question: str) -> str:
    """The question with an image tag (put in front if it has none) and the one-word suffix.

    The suffix is appended even if the question ends with it already; `signals.attention_maps` does not.
    """
    return (question if IMAGE_TAG in question else f"{IMAGE_TAG}\n{question}") + ONE_WORD_SUFFIX


def one_word_prompt(message: str, template: Literal["llava_v1", "vicuna_v1"]) -> str:
    """Prompt of one user message without an assistant marker: it ends in a blank.

    `llava_v1` is that of the released LLaVA script, `vicuna_v1` that of its MGM script.
    """
    return TEMPLATES[template].render([("user", message)], end="").text


def human_messages(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """{"unique_id", "conversation_position", "message"} of every human turn, the rows of the text vectors.

    The position counts all turns; `<image>` and `<Image>` are removed from the message, which is stripped and may be
    empty. Entries without `unique_id` or human turn have no row; a repeated id replaces the earlier entry's rows.
    """
    found: dict[Any, list[dict[str, Any]]] = {}
    for entry in entries:
        name = entry.get("unique_id")
        if name is None:
            continue
        rows = [
            {"unique_id": name, "conversation_position": position, "message": _without_tags(turn["value"])}
            for position, turn in enumerate(entry["conversations"])
            if turn["from"].lower() == "human"
        ]
        if rows:
            found[name] = rows
    return [row for rows in found.values() for row in rows]


def _without_tags(text: str) -> str:
    return text.replace(IMAGE_TAG, "").replace("<Image>", "").strip()
