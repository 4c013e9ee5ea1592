"""The text of a source row without its turns, and the whole row again.

Turns are most of a row, and they are stored as its conversation already. Where nothing is lost (turns of a role and a
text, in the format's own order and names) the row is kept without them.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from vsel_platform.samples.formats.common import CHAT_ROLES, LLAVA_ROLES

# Key of the turns -> keys of role and text in a turn, platform's role -> the format's name of it.
_STYLES: dict[str, tuple[str, str, dict[str, str]]] = {
    "conversations": ("from", "value", {role: name for name, role in LLAVA_ROLES.items()}),
    "messages": ("role", "content", {role: name for name, role in CHAT_ROLES.items()}),
}


def without_turns(value: Mapping[str, Any], turns_key: str) -> bytes:
    """Compact JSON text of a row with null in the place of its turns."""
    return orjson.dumps({**value, turns_key: None})


def whole_row(row_json: bytes | str, turns_key: str | None, conversation: bytes | str) -> bytes:
    """Compact JSON text of the source row, from the columns `row_json`, `turns_key` and `conversation` of a sample."""
    if turns_key is None:
        return row_json.encode() if isinstance(row_json, str) else row_json
    role_key, text_key, names = _STYLES[turns_key]
    value = orjson.loads(row_json)
    value[turns_key] = [{role_key: names[role], text_key: text} for role, text in orjson.loads(conversation)]
    return orjson.dumps(value)
