"""Which drawing serves what: base training, the pool to select from, or the held-out evaluation. Never two of them."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from vsel_platform.demo.artwork import Concept, Drawing

HELD_OUT_OF_256 = 64
"""Of 256 concepts so many give one drawing to the evaluation."""


@dataclass(frozen=True)
class Splits:
    """Disjoint sets of drawings. The split is fixed, because the shipped base has seen `alignment`."""

    alignment: tuple[Drawing, ...]
    pool: tuple[Drawing, ...]
    evaluation: tuple[Drawing, ...]


def split_drawings(drawings: Sequence[Drawing]) -> Splits:
    """Split drawings, concept by concept, in the order of a hash of their ids.

    Of a concept that all three vendors draw, one drawing goes to the alignment of the base, one to the evaluation
    (for a quarter of the concepts), the rest to the pool. Clocks and number keys are for reading, which the base
    is never taught: one drawing goes to the evaluation, the rest to the pool.
    """
    of_concept: dict[str, list[Drawing]] = defaultdict(list)
    for drawing in drawings:
        of_concept[drawing.concept.key].append(drawing)
    alignment, pool, evaluation = [], [], []
    for group in of_concept.values():
        ordered = sorted(group, key=lambda drawing: _digest(drawing.id))
        concept = ordered[0].concept
        if concept.reads is None and len(ordered) > 2:
            alignment.append(ordered.pop(0))
        if len(ordered) > 1 and (concept.reads is not None or is_held_out(concept)):
            evaluation.append(ordered.pop(0))
        pool.extend(ordered)
    return Splits(tuple(alignment), tuple(pool), tuple(evaluation))


def is_held_out(concept: Concept) -> bool:
    """Whether the evaluation asks about this concept (text-only rows of the pool then do not)."""
    return _digest(concept.key)[0] < HELD_OUT_OF_256


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
