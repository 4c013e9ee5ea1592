"""Rows that are trained on, rendered when their turn comes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vsel_platform.errors import DataError, ModelError
from vsel_platform.models.images import ContentFailure
from vsel_platform.models.vlm import ConversationRow, RenderedRow, ShownImage
from vsel_platform.training.unusable import NOTHING_TO_LEARN, UNREADABLE, UnusableLimit

Render = Callable[[ConversationRow, int, Sequence[ShownImage]], RenderedRow]
"""Tokens and targets of a row in an epoch, given what is shown of its images."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row of an optimiser step: its identity, its tokens and targets, its images."""

    sample_id: str
    rendered: RenderedRow
    images: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Usable:
    """Rows that can be learned from, sorted by id, their lengths, and what was left out and why."""

    rows: list[ConversationRow]
    lengths: list[int]
    left_out: list[ContentFailure]


def usable_rows(
    rows: Sequence[ConversationRow], length_of: Callable[[ConversationRow], tuple[int, int]], max_unusable: float
) -> Usable:
    """Rows with at least one token to learn.

    `length_of` gives a row's tokens and targets, or raises DataError. Raises ModelError if no row is left, or if more
    than `max_unusable` of them (a share) cannot be learned from.
    """
    kept: list[ConversationRow] = []
    lengths: list[int] = []
    left_out: list[ContentFailure] = []
    for row in sorted(rows, key=lambda row: row.sample_id):
        try:
            tokens, targets = length_of(row)
        except DataError as error:
            left_out.append(ContentFailure(row.sample_id, UNREADABLE, str(error)))
            continue
        if targets:
            kept.append(row)
            lengths.append(tokens)
        else:
            left_out.append(nothing_to_learn(row))
    if not kept:
        first = f"; the first, {left_out[0].content_id}: {left_out[0].detail}" if left_out else ""
        raise ModelError(f"training: none of {len(rows)} rows has an answer that can be learned{first}")
    UnusableLimit(left_out, len(rows), len(kept), max_unusable).check([])
    return Usable(kept, lengths, left_out)


def nothing_to_learn(row: ConversationRow) -> ContentFailure:
    """A row without targets, and why there are none."""
    is_blank = not any(text.strip() for role, text in row.turns if role == "assistant")
    detail = "all of its answers are empty" if is_blank else "no answer within the model's length"
    return ContentFailure(row.sample_id, NOTHING_TO_LEARN, detail)
