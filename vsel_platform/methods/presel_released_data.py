"""Data preparation of the released PreSel: LLaVA-style entries in, LLaVA-style entries out."""

import json
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vsel_platform.errors import DataError

Entry = dict[str, Any]
IMAGE_TAG = "<image>"


def to_json(entries: object) -> str:
    """JSON as the released scripts write it: indent 4, ASCII escapes."""
    return json.dumps(entries, indent=4)


def add_unique_index(entries: Sequence[Entry]) -> list[Entry]:
    """Every entry with its 0-based position as `unique_idx`: in place of an old one, else as the last key."""
    return [{**entry, "unique_idx": position} for position, entry in enumerate(entries)]


def write_with_unique_index(source: Path, target: Path) -> bool:
    """`add_unique_index` from file to file; False, and nothing is written, if the target exists."""
    if target.exists():
        return False
    target.write_text(to_json(add_unique_index(json.loads(source.read_text("utf-8")))), "utf-8")
    return True


def text_instruction(turns: Sequence[Mapping[str, str]]) -> str:
    """A conversation as one text, `USER: ... ASSISTANT: ...`.

    The image tag vanishes from human turns (which are then stripped). Raises DataError unless human and gpt turns
    alternate, human first.
    """
    parts = []
    for number, turn in enumerate(turns):
        expected = "gpt" if number % 2 else "human"
        if turn["from"] != expected:
            raise DataError(f"turn {number} is from {turn['from']!r}, expected {expected!r}; drop or repair the entry")
        text = turn["value"]
        if expected == "human" and IMAGE_TAG in text:
            text = text.replace(IMAGE_TAG, "").strip()
        parts.append(f"{'ASSISTANT' if number % 2 else 'USER'}: {text} ")
    return "".join(parts).strip()


def text_data(entries: Sequence[Entry]) -> dict[str, dict[str, str]]:
    """{unique_idx as text: {image (if there is one), text}} of indexed entries."""
    return {
        str(entry["unique_idx"]): ({"image": entry["image"]} if "image" in entry else {})
        | {"text": text_instruction(entry["conversations"])}
        for entry in entries
    }


def input_text(texts: Sequence[str]) -> str:
    """Prompt of a question: the last line of the first text, `</s>` as a blank."""
    return ("USER: " + texts[0].strip().split("\n")[-1].replace("</s>", " ")).strip()


def remove_instruction(entries: Sequence[Entry]) -> list[Entry]:
    """Entries without their questions: a bare image tag per tagged human turn, then all answers as one.

    Only id, image and unique_idx are kept. Raises DataError for an entry that lacks one of them (a text-only row).
    """
    return [_without_questions(entry, position) for position, entry in enumerate(entries)]


def _without_questions(entry: Entry, position: int) -> Entry:
    kept = ("id", "image", "unique_idx")
    missing = [key for key in kept if key not in entry]
    if missing:
        raise DataError(f"entry {position} has no {missing[0]!r}; leave text-only rows out of the reference")
    turns = entry["conversations"]
    tagged = [t for t in turns if t["from"] == "human" and IMAGE_TAG in t["value"]]
    answers = " ".join(turn["value"] for turn in turns if turn["from"] == "gpt")
    conversation = [{"from": "human", "value": IMAGE_TAG} for _ in tagged]
    return {key: entry[key] for key in kept} | {"conversations": [*conversation, {"from": "gpt", "value": answers}]}


def task_names(entries: Sequence[Entry]) -> list[str]:
    """Distinct `task_name`s in order of first appearance; empty and missing ones are skipped."""
    return list(dict.fromkeys(name for entry in entries if (name := entry.get("task_name"))))


def budgets_by_perplexity(
    tasks: Sequence[Sequence[int]], perplexity: Mapping[int, float], total: int, *, calibrate_top: int | None = None
) -> list[int]:
    """`total` split by mean perplexity x size of each task (ids), truncated; rows without perplexity are skipped.

    With `calibrate_top` each task's perplexities are first divided by the mean of its largest that many. Raises
    DataError for a task without any perplexity.
    """
    scores = []
    for number, ids in enumerate(tasks, start=1):
        known = {i: perplexity[i] for i in ids if i in perplexity}
        finite = [known[i] for i in ids if i in known and not math.isnan(known[i])]
        if not finite:
            raise DataError(f"task {number} has no perplexity, so its share is undefined")
        scale = 1.0
        if calibrate_top is not None:
            largest = sorted(known.values(), reverse=True)[:calibrate_top]
            scale = sum(largest) / len(largest)
        scores.append(sum(value / scale for value in finite) / len(finite) * len(ids))
    return [int(score / sum(scores) * total) for score in scores]


def top_by_loss(ids: Sequence[int], losses: Mapping[int, float], count: int) -> list[int]:
    """The `count` ids with the largest loss, largest first; a missing loss is the lowest, ties keep the order."""
    return sorted(ids, key=lambda i: losses.get(i, -math.inf), reverse=True)[:count]


def random_ids(ids: Sequence[int], count: int, *, seed: int) -> list[int]:
    """`count` ids drawn with Python's generator after seeding it."""
    return random.Random(seed).sample(list(ids), count)  # noqa: S311 - a draw of rows, not a secret
