"""What a method returns, whatever the method."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from vsel_platform.errors import SelectionError
from vsel_platform.selection.budgets import largest_remainder


@dataclass(frozen=True, slots=True)
class SelectedRow:
    """One selected row. Ranks start at 1: a smaller budget keeps about the smaller ranks."""

    sample_id: str
    rank: int
    task: str
    stratum: Literal["image", "text"]
    reason: str
    score: float | None = None
    cluster: int | None = None


@dataclass(frozen=True, slots=True)
class TaskBudget:
    """Budget of one task, in rows. `available`, `budget` and `selected` leave reference rows out."""

    task: str
    available: int
    reference: int
    importance: float | None
    weight: float
    budget: int
    selected: int


@dataclass(frozen=True, slots=True)
class SelectionResult:
    """Selected rows in rank order, the budget of every task, rows that could not be filled, remarks."""

    rows: list[SelectedRow]
    tasks: list[TaskBudget]
    shortfall: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Round:
    """One round of a selection: its number from 1, rows up to and including it, and how many it adds per task."""

    number: int
    rows: int
    added: dict[str, int]


def split_rounds(result: SelectionResult, n_rounds: int) -> list[Round]:
    """Cut a selection into nested rounds: the reference rows first, then equal parts in rank order.

    With one round, or without reference rows, there is no round of reference rows only. The selection itself does
    not depend on the number of rounds. Raises SelectionError for fewer than one round.
    """
    if n_rounds < 1:
        raise SelectionError(f"{n_rounds} rounds: give at least 1")
    reference = sum(row.reason == "reference" for row in result.rows)
    parts = [reference] if reference and n_rounds > 1 else []
    parts += largest_remainder([1.0] * (n_rounds - len(parts)), len(result.rows) - sum(parts))
    rounds, end = [], 0
    for number, size in enumerate(parts, start=1):
        added = Counter(row.task for row in result.rows[end : end + size])
        end += size
        rounds.append(Round(number, end, dict(sorted(added.items()))))
    return rounds
