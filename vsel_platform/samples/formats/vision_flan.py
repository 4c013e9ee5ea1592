"""Vision-FLAN: LLaVA rows with a `task_name`, which `task: {column: task_name}` makes the row's task."""

from collections.abc import Mapping
from typing import Any

from vsel_platform.samples.formats import llava
from vsel_platform.samples.sample import Conversation


def read(row: Mapping[str, Any]) -> Conversation:
    """Turns and images of a Vision-FLAN row. Raises RefusedRow."""
    return llava.read(row)
