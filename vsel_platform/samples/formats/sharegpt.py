"""ShareGPT: `messages` of `role` (user, assistant) and `content`; `images` is a list of paths or one path."""

from collections.abc import Mapping
from typing import Any

from vsel_platform.samples.formats.common import CHAT_ROLES, plain_key, read_images, read_turns
from vsel_platform.samples.sample import Conversation


def read(row: Mapping[str, Any]) -> Conversation:
    """Turns and images of a ShareGPT row. Raises RefusedRow."""
    return Conversation(
        read_turns(row, "messages", "role", "content", CHAT_ROLES),
        read_images(row),
        plain_key(row, "messages", "role", "content"),
    )
