"""LLaVA's `group_by_modality_length` exactly as released, for comparison; `training.samplers` is the default.

Lengths are words, negative for rows without image. Known faults, kept: the last megabatch of each modality is set
aside even if it is full, and all of them make the last step; rows without image alone are sorted the wrong way round.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vsel_platform.errors import DataError

Permutation = Callable[[int], Sequence[int]]
"""A permutation of 0 to n - 1; called up to three times in the released order."""
IMAGE_WORDS = 128
"""What an image counts for in LLaVA's plain lengths."""


def released_modality_order(
    lengths: Sequence[int], *, batch_size: int, world_size: int, permutation: Permutation
) -> list[int]:
    """Order of the rows of an epoch; `world_size` is processes x gradient accumulation steps.

    `permutation` is drawn for rows with image, rows without, and steps; once where there is one modality only. Raises
    DataError for a length of 0, as released.
    """
    if not all(lengths):
        raise DataError("Should not have zero length.")
    if len({length > 0 for length in lengths}) < 2:
        return released_length_order(lengths, batch_size=batch_size, world_size=world_size, permutation=permutation)
    size = batch_size * world_size
    steps: list[list[int]] = []
    aside: list[int] = []
    for sign in (1, -1):
        members = [i for i, length in enumerate(lengths) if length * sign > 0]
        own = released_length_order(
            [abs(lengths[i]) for i in members], batch_size=batch_size, world_size=world_size, permutation=permutation
        )
        order = [members[i] for i in own]
        *whole, last = [order[start : start + size] for start in range(0, len(order), size)]
        steps += whole
        aside += last
    return [i for step in permutation(len(steps)) for i in steps[step]] + sorted(aside)


def released_length_order(
    lengths: Sequence[int], *, batch_size: int, world_size: int, permutation: Permutation
) -> list[int]:
    """Order of rows: permuted, cut into megabatches, each sorted by length and dealt to the processes."""
    order, size = list(permutation(len(lengths))), batch_size * world_size
    found: list[int] = []
    for start in range(0, len(order), size):
        megabatch = sorted(order[start : start + size], key=lambda i: lengths[i], reverse=True)
        for chunk in released_even_chunks(megabatch, lengths, world_size):
            found += chunk
    return found


def released_even_chunks(indices: Sequence[int], lengths: Sequence[int], num_chunks: int) -> list[list[int]]:
    """Indices dealt into chunks of equal size, each to the chunk with the smallest sum; by turns if the size does not
    divide."""
    if len(indices) % num_chunks:
        return [list(indices[chunk::num_chunks]) for chunk in range(num_chunks)]
    chunks: list[list[int]] = [[] for _ in range(num_chunks)]
    sums = [0.0] * num_chunks
    for index in indices:
        shortest = sums.index(min(sums))
        chunks[shortest].append(index)
        sums[shortest] += lengths[index]
        if len(chunks[shortest]) == len(indices) // num_chunks:
            sums[shortest] = float("inf")
    return chunks


def released_lengths(entries: Sequence[Mapping[str, Any]]) -> list[int]:
    """Words of LLaVA entries, and IMAGE_WORDS for an image."""
    return [_words(entry) + (IMAGE_WORDS if "image" in entry else 0) for entry in entries]


def released_modality_lengths(entries: Sequence[Mapping[str, Any]]) -> list[int]:
    """Words of LLaVA entries, negative without image."""
    return [_words(entry) if "image" in entry else -_words(entry) for entry in entries]


def _words(entry: Mapping[str, Any]) -> int:
    return sum(len(turn["value"].split()) for turn in entry["conversations"])
