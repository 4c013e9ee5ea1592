"""Rows before they become JSON, and what the tasks draw them from."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from vsel_platform.demo.artwork import Concept, Drawing
from vsel_platform.demo.chance import Chance
from vsel_platform.demo.pictures import Picture, Variant

Turns = tuple[tuple[str, str], ...]
"""Question and exact answer, turn by turn."""


@dataclass(frozen=True, slots=True)
class Row:
    """One conversation; `picture` is None for a text-only row."""

    task: str
    picture: Picture | None
    turns: Turns

    def to_json(self, row_id: str) -> dict[str, Any]:
        """The row in LLaVA's JSON format, with the task as an extra key."""
        values = []
        for number, (question, answer) in enumerate(self.turns):
            tag = "<image>\n" if number == 0 and self.picture else ""
            values += [{"from": "human", "value": tag + question}, {"from": "gpt", "value": answer}]
        image = {"image": self.picture.path} if self.picture else {}
        return {"id": row_id, **image, "task": self.task, "conversations": values}


@dataclass(frozen=True)
class Source:
    """Drawings that rows may show, concepts that text-only rows may ask about, and names for wrong answers."""

    drawings: tuple[Drawing, ...]
    text_concepts: tuple[Concept, ...]
    concepts: tuple[Concept, ...]

    @cached_property
    def nameable(self) -> tuple[Drawing, ...]:
        """Drawings whose name says what is seen."""
        return tuple(drawing for drawing in self.drawings if drawing.concept.nameable)

    @cached_property
    def clocks(self) -> tuple[Drawing, ...]:
        """Clock faces."""
        return tuple(drawing for drawing in self.drawings if ":" in (drawing.concept.reads or ""))

    @cached_property
    def keys(self) -> tuple[Drawing, ...]:
        """Number keys."""
        return tuple(drawing for drawing in self.drawings if (drawing.concept.reads or "").isdigit())

    @cached_property
    def by_vendor(self) -> dict[str, tuple[Drawing, ...]]:
        """Nameable drawings of each vendor that has at least two."""
        found: dict[str, list[Drawing]] = defaultdict(list)
        for drawing in self.nameable:
            found[drawing.vendor].append(drawing)
        return {vendor: tuple(group) for vendor, group in found.items() if len(group) > 1}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of all nameable concepts."""
        return tuple(concept.name for concept in self.concepts if concept.nameable)

    @cached_property
    def _subgroups(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, list[str]] = defaultdict(list)
        for concept in self.concepts:
            if concept.nameable:
                found[concept.subgroup].append(concept.name)
        return {subgroup: tuple(names) for subgroup, names in found.items()}

    def other_name(self, concept: Concept, chance: Chance) -> str:
        """The name of another concept: every second time one of the same subgroup, if there is one."""
        related = self._subgroups.get(concept.subgroup, ())
        names = related if len(related) > 1 and chance.happens(0.5) else self.names
        while (name := chance.pick(names)) == concept.name:
            pass
        return name

    @cached_property
    def _groups(self) -> tuple[str, ...]:
        return tuple(sorted({concept.group.lower() for concept in self.concepts}))

    def other_groups(self, concept: Concept) -> list[str]:
        """The groups that a concept does not belong to, in lower case."""
        return [group for group in self._groups if group != concept.group.lower()]

    def other_names(self, concept: Concept, count: int, chance: Chance) -> list[str]:
        """`count` different names of other concepts (see `other_name`)."""
        found: list[str] = []
        while len(found) < count:
            name = self.other_name(concept, chance)
            if name not in found:
                found.append(name)
        return found


PictureTask = Callable[[Drawing, Variant, Source, Chance], Turns | None]
"""Turns about one drawing in a variant; None if the task has no exact answer for it."""

SceneTask = Callable[[Source, Chance], Row | None]
"""A row with a picture of its own, or without one."""


def choose_letter(options: Sequence[str], right: str) -> str:
    """The letter (a, b, c ...) of the right option."""
    return "abcdefgh"[options.index(right)]


def list_options(options: Sequence[str]) -> str:
    """Options as `a) pizza b) taco`."""
    return " ".join(f"{letter}) {option}" for letter, option in zip("abcdefgh", options, strict=False))
