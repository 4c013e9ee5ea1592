"""What fine-tuning changed per task, with intervals: learned, not learned, or worse."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# 97.5 % quantile of the standard normal distribution: intervals of 95 %.
Z = 1.959963984540054


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
    """Exact match of a task before (`base`) and after (`tuned`) fine-tuning, as shares of `n_answers`."""

    task: str
    n_answers: int
    base: float
    tuned: float

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
    def verdict(self) -> str:
        """`learned` if the gain's interval lies above 0, `worse` if it lies below, else `not learned`."""
        low, high = self.gain_interval
        if low > 0:
            return "learned"
        return "worse" if high < 0 else "not learned"


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
        )
        for task, models in shares.items()
        if "base" in models and "tuned" in models
    ]
    return sorted(both, key=lambda row: (-row.tuned, -row.base, row.task))
