"""Rows that begin alike share their beginning: one sequence, branches behind a common prefix.

The conditions of a row differ in the question, but system text and image tokens come before it. The prefix passes
through the model once; each branch sees the prefix and itself, and counts its positions on from the prefix, so
that every hidden state is the one that the row alone would have.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vsel_platform.models.vlm import RenderedRow

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PackedRows:
    """Rows of one group in one sequence of n tokens.

    input_ids, branch: int64 [n]; branch 0 is the common prefix, branch i the rest of row i - 1.
    positions: int64 [n], or [3, n] of rows that count so.
    feature: int64 [n], for an image token its number among the image tokens of its row, else -1.
    places: for each row int64 [tokens of the row], where its tokens are.
    targets, before: int64 [targets], row by row, the place of each target and of the token that predicts it.
    """

    input_ids: Indices
    positions: Indices
    branch: Indices
    feature: Indices
    places: tuple[Indices, ...]
    targets: Indices
    before: Indices

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def last(self) -> Indices:
        """The place of each row's last token, int64 [rows]."""
        return np.array([place[-1] for place in self.places])


def common_prefix(rows: Sequence[RenderedRow]) -> int:
    """Number of leading tokens that all rows share."""
    shortest = min(len(row) for row in rows)
    same = np.ones(shortest, dtype=bool)
    for row in rows[1:]:
        same &= row.input_ids[:shortest] == rows[0].input_ids[:shortest]
    return shortest if same.all() else int(same.argmin())


def packed_length(rows: Sequence[RenderedRow]) -> int:
    """Tokens of `pack(rows)`."""
    prefix = common_prefix(rows)
    return prefix + sum(len(row) - prefix for row in rows)


def pack(rows: Sequence[RenderedRow], image_token_id: int) -> PackedRows:
    """Pack the rows of one group (at least one)."""
    prefix = common_prefix(rows)
    ids, positions, branch, feature = [], [], [], []
    places, targets, before = [], [], []
    start = prefix
    for number, row in enumerate(rows):
        first = 0 if number == 0 else prefix
        length = len(row)
        is_image = row.input_ids == image_token_id
        ids.append(row.input_ids[first:])
        counted = np.arange(length) if row.positions is None else row.positions
        positions.append(counted[..., first:])
        branch.append(np.where(np.arange(first, length) < prefix, 0, number + 1))
        feature.append(np.where(is_image, np.cumsum(is_image) - 1, -1)[first:])
        place = np.concatenate([np.arange(prefix), np.arange(start, start + length - prefix)])
        places.append(place)
        own = np.flatnonzero(row.answer_index >= 0)
        targets.append(place[own])
        before.append(place[own - 1])
        start += length - prefix
    return PackedRows(
        np.concatenate(ids),
        np.concatenate(positions, axis=-1),
        np.concatenate(branch),
        np.concatenate(feature),
        tuple(places),
        np.concatenate(targets),
        np.concatenate(before),
    )


def aligned(batch: Sequence[PackedRows]) -> tuple[list[PackedRows], int]:
    """The groups with padding between prefix and branches, so that all branches begin at the same place; this place.

    Padding has branch -1.
    """
    prefixes = [int((packed.branch == 0).sum()) for packed in batch]
    width = max(prefixes)
    return [_widened(packed, p, width - p) for packed, p in zip(batch, prefixes, strict=True)], width


def _widened(packed: PackedRows, prefix: int, count: int) -> PackedRows:
    """The group with `count` tokens of padding behind its prefix."""

    def pad(values: Indices, fill: int) -> Indices:
        return np.insert(values, np.full(count, prefix), fill, axis=-1)

    def moved(places: Indices) -> Indices:
        return np.where(places < prefix, places, places + count)

    return PackedRows(
        pad(packed.input_ids, 0),
        pad(packed.positions, 0),
        pad(packed.branch, -1),
        pad(packed.feature, -1),
        tuple(moved(places) for places in packed.places),
        moved(packed.targets),
        moved(packed.before),
    )


def branches(batch: Sequence[PackedRows], length: int) -> Indices:
    """Branch of every token int64 [rows, length], -1 for padding."""
    found = np.full((len(batch), length), -1, dtype=np.int64)
    for i, packed in enumerate(batch):
        found[i, : len(packed)] = packed.branch
    return found


def attention_mask(batch: Sequence[PackedRows], length: int, start: int = 0) -> NDArray[np.bool_]:
    """Which token, of those from `start` on, may see which, bool [rows, length - start, length]: the past of the own
    branch, and the prefix.

    Padding sees the prefix and itself, so that no line is empty.
    """
    branch = branches(batch, length)
    seen, seeing = branch[:, None, :], branch[:, start:, None]
    causal = np.tri(length, dtype=bool)[start:]
    return np.asarray(causal & ((seen == 0) | (seen == seeing)))
