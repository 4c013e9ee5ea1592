"""What a method returns, whatever the method."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class SelectedRow:
    """One selected row. Ranks start at 1: a smaller budget would keep the smaller ranks."""

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
