"""Hugging Face `datasets` and Parquet: the usual columns for conversations, images as paths or bytes.

Conversations: `messages` or `conversations` (`role`/`content` or `from`/`value`; a content may be a list of
text and image parts), or `texts` (pairs of `user` and `assistant`). These data sets keep images in a column
of their own and often leave the texts without `<image>` tags: then the images stand before the first question.
"""

from collections.abc import Mapping
from typing import Any

from vsel_platform.samples.formats.common import CHAT_ROLES, LLAVA_ROLES, read_images, read_turns, turn_list
from vsel_platform.samples.sample import Conversation, Reason, RefusedRow

IMAGE_TAG = "<image>"
ROLES = {**LLAVA_ROLES, **CHAT_ROLES}


def read(row: Mapping[str, Any]) -> Conversation:
    """Turns and images of a row. Raises RefusedRow."""
    images = read_images(row)
    turns = _pairs(row) if row.get("texts") is not None else _turns(row)
    if images and not any(IMAGE_TAG in text for _, text in turns):
        turns = _images_first(turns, len(images))
    return Conversation(turns, images)


def _turns(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    key = "messages" if row.get("messages") is not None else "conversations"
    turns = turn_list(row, key)
    chat = isinstance(turns[0], dict) and turns[0].get("role") is not None
    if not chat:
        return read_turns(row, key, "from", "value", ROLES)
    flat = [
        {**turn, "content": _join_parts(turn["content"])}
        if isinstance(turn, dict) and isinstance(turn.get("content"), list)
        else turn
        for turn in turns
    ]
    return read_turns({key: flat}, key, "role", "content", ROLES)


def _join_parts(parts: list[Any]) -> str | None:
    texts: list[str] = []
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "image":
            texts.append(IMAGE_TAG)
        elif kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        else:
            return None
    return "\n".join(texts)


def _pairs(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    turns: list[tuple[str, str]] = []
    for number, pair in enumerate(turn_list(row, "texts")):
        if not isinstance(pair, dict):
            raise RefusedRow(Reason.TURN_NOT_AN_OBJECT, f"texts[{number}] is a {type(pair).__name__}")
        for role in ("user", "assistant"):
            text = pair.get(role)
            if not isinstance(text, str):
                raise RefusedRow(Reason.TEXT_NOT_A_STRING, f"texts[{number}].{role} is not a string")
            turns.append((role, text))
    return turns


def _images_first(turns: list[tuple[str, str]], count: int) -> list[tuple[str, str]]:
    first = next((i for i, (role, _) in enumerate(turns) if role == "user"), None)
    if first is None:
        return turns
    role, text = turns[first]
    return [*turns[:first], (role, f"{IMAGE_TAG}\n" * count + text), *turns[first + 1 :]]
