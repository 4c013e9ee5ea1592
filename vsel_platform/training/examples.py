"""Rows that are trained on, rendered when their turn comes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vsel_platform.errors import DataError, ModelError
from vsel_platform.models.vlm import ConversationRow, RenderedRow, ShownImage

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
    """Rows that can be learned from, sorted by id, and how many were left out, by reason."""

    rows: list[ConversationRow]
    lengths: list[int]
    left_out: dict[str, int]

    @property
    def n_left_out(self) -> int:
        """Rows that are not trained on."""
        return sum(self.left_out.values())


def usable_rows(
    rows: Sequence[ConversationRow], length_of: Callable[[ConversationRow], tuple[int, int]], max_unusable: float
) -> Usable:
    """Rows with at least one token to learn.

    `length_of` gives a row's tokens and targets, or raises DataError. Raises ModelError if no row is left, or if more
    than `max_unusable` of them (a share) have nothing to learn: the template does not fit the data then.
    """
    kept: list[ConversationRow] = []
    lengths: list[int] = []
    left_out = {"unreadable": 0, "nothing to learn": 0}
    first = ""
    for row in sorted(rows, key=lambda row: row.sample_id):
        try:
            tokens, targets = length_of(row)
        except DataError as error:
            left_out["unreadable"] += 1
            first = first or f"{row.sample_id}: {error}"
            continue
        if targets:
            kept.append(row)
            lengths.append(tokens)
        else:
            left_out["nothing to learn"] += 1
            first = first or f"{row.sample_id}: no answer within the model's length"
    if not kept:
        raise ModelError(f"training: none of {len(rows)} rows has an answer that fits into the model's length")
    masked = left_out["nothing to learn"] / len(rows)
    if masked > max_unusable:
        raise ModelError(
            f"training: {masked:.1%} of {len(rows)} rows have no token to learn, more than max_unusable "
            f"({max_unusable:.1%}); the first: {first}. Look at vlm.max_tokens and at the rows"
        )
    return Usable(kept, lengths, left_out)
