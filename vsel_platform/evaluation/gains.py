"""What fine-tuning changed per category of a benchmark: the headline metric with intervals, loss, and a verdict."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vsel_platform.evaluation.benchmark import Measure
from vsel_platform.evaluation.metric_rows import LOSS
from vsel_platform.evaluation.statistics import N_RESAMPLES, interval, paired_difference

# Relative change of a mean loss that is called one.
LOSS_CHANGE = 0.02
ALL = "all"
Ends = tuple[float, float]


@dataclass(frozen=True, slots=True)
class TaskComparison:
    """A category before (`base`) and after (`tuned`) fine-tuning, in the unit of its metric, with 95 % intervals over
    resampled images; `gain_interval` is that of tuned - base over the same resamples.

    Losses are means over the tokens of the right answers [nat/token], None where there are none; a change below
    `LOSS_CHANGE` counts as none.
    """

    task: str
    n_answers: int
    base: float
    tuned: float
    base_interval: Ends
    tuned_interval: Ends
    gain_interval: Ends
    base_loss: float | None = None
    tuned_loss: float | None = None
    unit: str = "percent"

    @property
    def loss_rises(self) -> bool:
        """Whether the loss is higher after fine-tuning."""
        if self.base_loss is None or self.tuned_loss is None:
            return False
        return self.tuned_loss > (1 + LOSS_CHANGE) * self.base_loss

    @property
    def never_right(self) -> bool:
        """Nothing is right before or after, as with exact matches of captions: the metric cannot judge such a task."""
        return self.base == 0 and self.tuned == 0

    @property
    def verdict(self) -> str:
        """`learned`: the metric rises beyond its interval. `worse`: it falls beyond it, or the loss rises.

        `mixed`: metric and loss both rise. `not judged`: nothing is right and the loss does not rise.
        `not learned`: everything else.
        """
        low, high = self.gain_interval
        if low > 0:
            return "mixed" if self.loss_rises else "learned"
        if high < 0 or self.loss_rises:
            return "worse"
        return "not judged" if self.never_right else "not learned"


def compare(
    base: Sequence[Measure],
    tuned: Sequence[Measure],
    clusters: Sequence[str],
    headline: str,
    *,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> list[TaskComparison]:
    """Categories of a benchmark's headline metric, best tuned first; a benchmark without categories is one, `all`.

    Measures are those of both models over the same questions in the same order (`evaluation.benchmark`), of a metric
    of which more is better.
    """
    before, after = ({m.group: m for m in own if m.name == headline} for own in (base, tuned))
    losses = [{m.group: m.estimate for m in own if m.name == LOSS} for own in (base, tuned)]
    groups = [group for group in after if group and group in before] or [""]
    found = []
    for group in groups:
        if group not in before or group not in after:
            continue
        ends = [interval(own[group], clusters, n_resamples=n_resamples, seed=seed) for own in (before, after)]
        gain = paired_difference(after[group], before[group], clusters, n_resamples=n_resamples, seed=seed)
        if math.isnan(gain.estimate):
            continue
        found.append(
            TaskComparison(
                task=group or ALL,
                n_answers=after[group].n_questions,
                base=ends[0].estimate,
                tuned=ends[1].estimate,
                base_interval=(ends[0].low, ends[0].high),
                tuned_interval=(ends[1].low, ends[1].high),
                gain_interval=(gain.low, gain.high),
                base_loss=losses[0].get(group),
                tuned_loss=losses[1].get(group),
                unit=after[group].unit,
            )
        )
    return sorted(found, key=lambda row: (-row.tuned, -row.base, row.task))


def regressions(results: Sequence[TaskComparison]) -> list[str]:
    """A sentence for every task that got worse, or of which metric and loss disagree."""
    return [
        f"{r.task}: {r.verdict}, {_losses(r)}{r.base:.1f} -> {r.tuned:.1f} {r.unit}."
        for r in results
        if r.verdict in ("worse", "mixed")
    ]


def _losses(row: TaskComparison) -> str:
    if row.base_loss is None or row.tuned_loss is None:
        return ""
    return f"loss {row.base_loss:.3f} -> {row.tuned_loss:.3f} nat/token, "


def unjudged(results: Iterable[TaskComparison]) -> list[str]:
    """A sentence about the tasks that the metric cannot judge; none if there is no such task."""
    never = ", ".join(sorted({r.task for r in results if r.never_right}))
    if not never:
        return []
    return [
        f"No answer is right before or after in: {never}. The metric cannot judge such tasks (exact match of long free "
        "text, like captions); their loss can."
    ]
