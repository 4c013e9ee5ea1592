"""What fine-tuning changed per task: exact match with intervals, loss, and a verdict."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# 97.5 % quantile of the standard normal distribution: intervals of 95 %.
Z = 1.959963984540054
# Relative change of a mean loss that is called one; the table keeps no spread to make an interval of.
LOSS_CHANGE = 0.02


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """95 % interval of a binomial share; (0, 1) if nothing was observed.

    Wilson, J. Am. Stat. Assoc. 22 (1927) 209: (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n).
    """
    if n <= 0:
        return 0.0, 1.0
    share = successes / n
    centre = share + Z * Z / (2 * n)
    half = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    scale = 1 + Z * Z / n
    # At 0 and n successes an end is 0 or 1 exactly; rounding would miss it.
    low = 0.0 if successes == 0 else (centre - half) / scale
    high = 1.0 if successes == n else (centre + half) / scale
    return low, high


def difference_interval(successes: int, n: int, other_successes: int, other_n: int) -> tuple[float, float]:
    """95 % interval of the difference of two independent shares, made of their Wilson intervals.

    Newcombe, Stat. Med. 17 (1998) 873, method 10.
    """
    share, other = successes / max(n, 1), other_successes / max(other_n, 1)
    (low, high), (other_low, other_high) = wilson_interval(successes, n), wilson_interval(other_successes, other_n)
    down = math.hypot(share - low, other_high - other)
    up = math.hypot(high - share, other - other_low)
    return share - other - down, share - other + up


@dataclass(frozen=True, slots=True)
class TaskComparison:
    """A task before (`base`) and after (`tuned`) fine-tuning: exact match as shares of `n_answers`, mean losses.

    Losses are in nat/token. They are means without an interval: a change below `LOSS_CHANGE` counts as none.
    """

    task: str
    n_answers: int
    base: float
    tuned: float
    base_loss: float
    tuned_loss: float

    @property
    def base_interval(self) -> tuple[float, float]:
        """Wilson interval of the base model's share."""
        return wilson_interval(round(self.base * self.n_answers), self.n_answers)

    @property
    def tuned_interval(self) -> tuple[float, float]:
        """Wilson interval of the tuned model's share."""
        return wilson_interval(round(self.tuned * self.n_answers), self.n_answers)

    @property
    def gain_interval(self) -> tuple[float, float]:
        """95 % interval of tuned - base. Both models answer the same rows, so it is rather too wide than too narrow."""
        base, tuned = (round(share * self.n_answers) for share in (self.base, self.tuned))
        return difference_interval(tuned, self.n_answers, base, self.n_answers)

    @property
    def loss_rises(self) -> bool:
        """Whether the loss is higher after fine-tuning."""
        return self.tuned_loss > (1 + LOSS_CHANGE) * self.base_loss

    @property
    def never_exact(self) -> bool:
        """No answer is exact before or after, as with captions: exact match cannot judge such a task."""
        return self.base == 0 and self.tuned == 0

    @property
    def verdict(self) -> str:
        """`learned`: exact match rises beyond its interval. `worse`: it falls beyond it, or the loss rises.

        `mixed`: exact match and loss both rise. `not judged`: no answer is exact and the loss does not rise.
        `not learned`: everything else.
        """
        low, high = self.gain_interval
        if low > 0:
            return "mixed" if self.loss_rises else "learned"
        if high < 0 or self.loss_rises:
            return "worse"
        return "not judged" if self.never_exact else "not learned"


def compare(rows: Iterable[Mapping[str, Any]]) -> list[TaskComparison]:
    """Tasks that both models were evaluated on, best tuned first, from rows of the `evaluation` table."""
    shares: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        shares.setdefault(row["task"], {})[row["model"]] = row
    both = [
        TaskComparison(
            task,
            min(models["base"]["n_answers"], models["tuned"]["n_answers"]),
            models["base"]["exact_match"],
            models["tuned"]["exact_match"],
            models["base"]["loss_mean"],
            models["tuned"]["loss_mean"],
        )
        for task, models in shares.items()
        if "base" in models and "tuned" in models
    ]
    return sorted(both, key=lambda row: (-row.tuned, -row.base, row.task))


def regressions(results: Sequence[TaskComparison]) -> list[str]:
    """A sentence for every task that got worse, or of which exact match and loss disagree."""
    return [
        f"{r.task}: {r.verdict}, loss {r.base_loss:.3f} -> {r.tuned_loss:.3f} nat/token, "
        f"exact match {r.base:.1%} -> {r.tuned:.1%}."
        for r in results
        if r.verdict in ("worse", "mixed")
    ]


def unjudged(results: Iterable[TaskComparison]) -> list[str]:
    """A sentence about the tasks that exact match cannot judge; none if there is no such task."""
    never = ", ".join(sorted({r.task for r in results if r.never_exact}))
    if not never:
        return []
    return [
        f"No answer is exact before or after in: {never}. Exact match cannot judge such tasks (long free text like "
        "captions); their loss can."
    ]
