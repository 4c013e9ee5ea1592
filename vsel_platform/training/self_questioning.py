"""SQ-LLaVA's objective (arXiv 2403.11299): of some rows the model also learns to ask the user's later questions.

A question that is drawn becomes a turn of the virtual user (`models.templates.ASKER`), whose words are targets.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import orjson
from numpy.typing import NDArray

from vsel_platform.models.templates import ASKER, IMAGE_TAG
from vsel_platform.models.vlm import RenderedRow

Turns = Sequence[tuple[str, str]]


def drawn_questions(
    turns: Turns, n_images: int, *, ratio: float, seed: int, epoch: int, sample_id: str
) -> tuple[int, ...]:
    """Numbers of the turns (from 0, all turns counted) that the model is to ask itself in this epoch.

    Each question that can be asked is drawn with probability `ratio`, as a pure function of seed, epoch, row and turn:
    neither the other rows nor their order matter, and a larger ratio only adds questions.
    """
    return tuple(
        number for number in askable_questions(turns, n_images) if _uniform(seed, epoch, sample_id, number) < ratio
    )


def askable_questions(turns: Turns, n_images: int) -> tuple[int, ...]:
    """Numbers of the turns that a virtual user could ask: the user's, but for the first, of a row with an image.

    A blank turn and one that shows an image are none: nobody can ask them in words.
    """
    if not n_images:
        return ()
    users = [number for number, (role, _) in enumerate(turns) if role == "user"]
    return tuple(number for number in users[1:] if turns[number][1].strip() and IMAGE_TAG not in turns[number][1])


def with_questions_asked(turns: Turns, numbers: Sequence[int]) -> list[tuple[str, str]]:
    """The same turns, those of these numbers the virtual user's."""
    return [(ASKER if number in numbers else role, text) for number, (role, text) in enumerate(turns)]


def target_weights(row: RenderedRow, question_weight: float) -> NDArray[np.float32]:
    """Weight of every target in order, float32 [targets]: 1 in an answer, `question_weight` in a question asked."""
    return np.where(row.asked_targets, question_weight, 1.0).astype(np.float32)


def _uniform(seed: int, epoch: int, sample_id: str, turn: int) -> float:
    """A number in [0, 1) that depends on all arguments and on nothing else."""
    digest = hashlib.sha256(orjson.dumps(["self-questioning", seed, epoch, sample_id, turn])).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
