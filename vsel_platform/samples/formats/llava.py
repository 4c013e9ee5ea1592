"""LLaVA JSON: `conversations` of `from` (human, gpt) and `value`; `image` is a path or a list of paths."""

from collections.abc import Mapping
from typing import Any

from vsel_platform.samples.formats.common import LLAVA_ROLES, plain_key, read_images, read_turns
from vsel_platform.samples.sample import Conversation


def read(row: Mapping[str, Any]) -> Conversation:
    """Turns and images of a LLaVA row. Raises RefusedRow."""
    return Conversation(
        read_turns(row, "conversations", "from", "value", LLAVA_ROLES),
        read_images(row),
        plain_key(row, "conversations", "from", "value"),
    )
