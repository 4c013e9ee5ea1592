"""What readers of different formats share: turns under a key, image references under a key."""

from collections.abc import Mapping
from typing import Any

from vsel_platform.samples.sample import EmbeddedImage, ImageReference, Reason, RefusedRow

LLAVA_ROLES = {"human": "user", "gpt": "assistant", "system": "system"}
NO_IMAGES: tuple[Any, ...] = (None, "", [])
CHAT_ROLES = {"user": "user", "assistant": "assistant", "system": "system"}


def turn_list(row: Mapping[str, Any], key: str) -> list[Any]:
    """The non-empty list under `key`. Raises RefusedRow."""
    turns = row.get(key)
    if not isinstance(turns, list):
        found = "missing" if turns is None else f"a {type(turns).__name__}, not a list"
        raise RefusedRow(Reason.CONVERSATION_MISSING, f"`{key}` is {found}")
    if not turns:
        raise RefusedRow(Reason.CONVERSATION_EMPTY, f"`{key}` is an empty list")
    return turns


def read_turns(
    row: Mapping[str, Any], key: str, role_key: str, text_key: str, roles: Mapping[str, str]
) -> list[tuple[str, str]]:
    """Turns under `key` as `(role, text)` with the platform's roles. Raises RefusedRow."""
    given = turn_list(row, key)
    try:
        turns = [(roles[turn[role_key]], turn[text_key]) for turn in given]
        "".join([text for _, text in turns])
        return turns
    except (KeyError, TypeError, IndexError):
        raise _fault(given, key, role_key, text_key, roles) from None


def plain_key(row: Mapping[str, Any], key: str, role_key: str, text_key: str) -> str | None:
    """`key` if every turn under it is an object of a role and a text, in this order, and nothing else."""
    return key if {*map(tuple, row[key])} == {(role_key, text_key)} else None


def _fault(turns: list[Any], key: str, role_key: str, text_key: str, roles: Mapping[str, str]) -> RefusedRow:
    """What is wrong with the first turn that cannot be read."""
    for number, turn in enumerate(turns):
        where = f"{key}[{number}]"
        if not isinstance(turn, dict):
            return RefusedRow(Reason.TURN_NOT_AN_OBJECT, f"{where} is a {type(turn).__name__}")
        name, text = turn.get(role_key), turn.get(text_key)
        if not isinstance(name, str) or name not in roles:
            return RefusedRow(Reason.ROLE_UNKNOWN, f"{where}.{role_key} is {name!r:.80}; known: {', '.join(roles)}")
        if not isinstance(text, str):
            return RefusedRow(Reason.TEXT_NOT_A_STRING, f"{where}.{text_key} is a {type(text).__name__}")
    return RefusedRow(Reason.CONVERSATION_MISSING, f"`{key}` cannot be read as turns")


def read_images(row: Mapping[str, Any]) -> list[ImageReference]:
    """Images under `image` or `images`: a path, `{"path": ...}`, embedded bytes, or a list of these.

    No key, null, an empty text or list are no images. Raises RefusedRow for anything else, and if both keys
    name images.
    """
    image, images = row.get("image"), row.get("images")
    if isinstance(image, str) and image and images is None:
        return [image]
    if image in NO_IMAGES and images in NO_IMAGES:
        return []
    key = "image" if images in NO_IMAGES else "images"
    if image not in NO_IMAGES and images not in NO_IMAGES:
        raise RefusedRow(Reason.IMAGE_REFERENCE_INVALID, "both `image` and `images` are given")
    value = row[key]
    found = [_reference(item) for item in (value if isinstance(value, list) else [value])]
    if None in found:
        raise RefusedRow(Reason.IMAGE_REFERENCE_INVALID, f"{key}[{found.index(None)}] is no path and no image")
    return [item for item in found if item is not None]


def _reference(image: Any) -> ImageReference | None:
    if isinstance(image, dict) and image.get("bytes") is None:
        image = image.get("path")
    return image if isinstance(image, EmbeddedImage) or (isinstance(image, str) and image) else None
