"""Seeded choices: the same on every machine for the same seed and label."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Chance:
    """A stream of choices that depends on a seed and a label alone."""

    def __init__(self, seed: int, label: str) -> None:
        digest = hashlib.sha256(f"{seed}/{label}".encode()).digest()
        self._generator = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))

    def below(self, bound: int) -> int:
        """A whole number in [0, bound)."""
        return int(self._generator.integers(bound))

    def happens(self, probability: float) -> bool:
        """True with the given probability."""
        return bool(self._generator.random() < probability)

    def pick(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[self.below(len(items))]

    def sample(self, items: Sequence[T], count: int) -> list[T]:
        """`count` different items (all of them if there are fewer), in random order."""
        order = self._generator.permutation(len(items))[:count]
        return [items[int(index)] for index in order]

    def cycle(self, items: Sequence[T]) -> Iterator[T]:
        """All items in random order, again and again in a new order; nothing if there are none."""
        while items:
            yield from self.sample(items, len(items))
