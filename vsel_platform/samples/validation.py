"""One source row to a `Sample`, or to a `Rejected` with the reason; never an exception for what a row holds."""

import hashlib
from typing import Any

import orjson

from vsel_platform.identity import normalise_text
from vsel_platform.samples.formats import Format
from vsel_platform.samples.images import ImageIndex
from vsel_platform.samples.rows import without_turns
from vsel_platform.samples.sample import (
    Conversation,
    ImageRecord,
    Reason,
    RefusedRow,
    Rejected,
    Sample,
    SourceRow,
    reject,
)

IMAGE_TAG = b"<image>"
ALTERNATING = ["user", "assistant"] * 64


def validate(row: SourceRow, format: Format, images: ImageIndex) -> Sample | Rejected:
    """Check a row and identify its content.

    One system turn may come first; after it user and assistant take turns, the user first, the assistant last:
    a question without an answer teaches nothing. The texts hold as many `<image>` tags as the row has images.
    """
    conversation = read_row(row, format)
    return conversation if isinstance(conversation, Rejected) else identify(row, conversation, images)


def read_row(row: SourceRow, format: Format) -> Conversation | Rejected:
    """The row's turns and image references as its format reads them, order of roles checked."""
    try:
        if not isinstance(row.value, dict):
            raise RefusedRow(Reason.NOT_AN_OBJECT, f"the row is a {type(row.value).__name__}")
        _check_id(row.value.get("id"))
        conversation = format.read(row.value)
        _check_roles(conversation.turns)
        return conversation
    except RefusedRow as refused:
        return reject(row.position, refused.reason, refused.detail, row.compact)


def identify(row: SourceRow, conversation: Conversation, images: ImageIndex) -> Sample | Rejected:
    """The sample of a row that was read: images looked up, tags counted, identity computed.

    The identity is `identity.sample_id`, made from the same JSON text that is stored as the conversation.
    """
    try:
        turns, turns_key = conversation.turns, conversation.turns_key
        text = orjson.dumps(turns)
        if not text.isascii():
            turns = [(role, normalise_text(text)) for role, text in turns]
            if turns != conversation.turns:
                text, turns_key = orjson.dumps(turns), None
        _check_tags(text.count(IMAGE_TAG), len(conversation.images))
        records = tuple(map(images.get, conversation.images))
        source_id = row.value.get("id")
        row_json, turns_key = _row_text(row, turns_key)
        return Sample(
            row.position,
            _identity(text, records),
            text,
            len(turns),
            len("".join([item for _, item in turns])),
            records,
            None if source_id is None else _id_json(source_id),
            row_json,
            turns_key,
        )
    except RefusedRow as refused:
        return reject(row.position, refused.reason, refused.detail, row.compact)


def _row_text(row: SourceRow, turns_key: str | None) -> tuple[bytes, str | None]:
    """The row's text as it is kept, and the key of the turns that were left out of it."""
    if row.json is not None:
        return row.json, None
    if turns_key is None:
        return orjson.dumps(row.value), None
    return without_turns(row.value, turns_key), turns_key


def _identity(conversation: bytes, images: tuple[ImageRecord, ...]) -> str:
    ids = b'"' + b'","'.join([image.image_id.encode() for image in images]) + b'"' if images else b""
    return hashlib.sha256(b"".join((b"[", conversation, b",[", ids, b"]]"))).hexdigest()


def _id_json(value: str | int) -> bytes:
    return orjson.dumps(value) if isinstance(value, str) else str(value).encode()


def _check_id(value: Any) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, str | int)):
        raise RefusedRow(Reason.ID_OF_WRONG_TYPE, f"`id` is a {type(value).__name__}, not a string or an integer")


def _check_roles(turns: list[tuple[str, str]]) -> None:
    roles = [role for role, _ in turns]
    if roles == ALTERNATING[: len(roles)] and not len(roles) & 1:
        return
    start = 1 if roles[0] == "system" else 0
    if len(turns) == start:
        raise RefusedRow(Reason.CONVERSATION_EMPTY, "a system turn and nothing else")
    for number in range(start, len(turns)):
        due = "assistant" if (number - start) & 1 else "user"
        if roles[number] != due:
            detail = f"turn {number} is the {roles[number]}'s; the {due}'s turn is due"
            raise RefusedRow(Reason.ROLES_NOT_ALTERNATING, detail)
    if roles[-1] != "assistant":
        detail = "the last turn is the user's: there is no answer to learn"
        raise RefusedRow(Reason.ROLES_NOT_ALTERNATING, detail)


def _check_tags(tags: int, images: int) -> None:
    if tags != images:
        raise RefusedRow(Reason.IMAGE_COUNT_MISMATCH, f"{tags} <image> tag(s), {images} image(s)")
