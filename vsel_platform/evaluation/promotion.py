"""Guard of a champion: is a new selection promoted in its place?

The question is "not worse than the champion beyond the interval", where the interval is that of candidate - champion,
turned so that positive is better. Two readings are possible, and neither will do alone:

* Keep only what is shown to be worse (the whole interval below -margin). A short or noisy benchmark then lets
  everything through: a wide interval shows nothing, and absence of evidence is taken for evidence.
* Promote only what is shown not to be worse (the whole interval above -margin: non-inferiority, Piaggio et al., JAMA
  308 (2012) 2594). With a margin of 0 a candidate as good as the champion is practically never promoted.

So both ends have a say. A candidate is promoted if it is not shown to be worse (upper end >= -margin) and a loss that
would matter is ruled out (lower end >= -max_loss). An interval too wide to rule such a loss out keeps the champion,
and the reason asks for more questions or seeds. With max_loss = margin the rule is non-inferiority.

Where candidate and champion differ alike on every question there is nothing to resample: all answers of either are
right, or all wrong, or both are right on the same questions. The bootstrap would give an interval without width, which
claims too much: that n clusters show no other difference leaves open that a share of up to 1 - 0.025^(1/n) of all
clusters has one (97.5 % bound of the exact binomial, Clopper and Pearson, Biometrika 26 (1934) 404), of as many
percent points as two shares can differ. So the interval of equal shares is +- 100 (1 - 0.025^(1/n)) percent points:
13.7 with 25 clusters, below 5 from 72 on. Equal models are so promoted where the benchmark is large enough to rule
the loss out, by the same rule as all others, whether they stand at 0, 40 or 100 %. A metric in another unit has no
such bound: its interval is not defined, and the champion stays.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vsel_platform.errors import ConfigError, DataError
from vsel_platform.evaluation.benchmark import Measure
from vsel_platform.evaluation.seed_noise import SeedNoise, pooled
from vsel_platform.evaluation.statistics import (
    cluster_numbers,
    counting_clusters,
    difference_of,
    ends_without_spread,
    resampled,
)

N_RESAMPLES = 4_000
MARGIN = 0.0
MAX_LOSS = 5.0
MIN_CLUSTERS = 20
"""Fewer clusters of questions are too few to resample: the champion stays."""
NO_SPREAD = 1e-9
"""Width of an interval that has none but for rounding."""

Ruling = Literal["promote", "keep"]


@dataclass(frozen=True, slots=True)
class Promotion:
    """A ruling and its numbers, all in the measure's unit; None: not defined.

    difference: candidate - champion, positive is better also for a measure of which less is better, with its 95 %
    interval. share_not_better: share of draws in which it is zero or below. seed_df: degrees of freedom of the
    variance between seeds in the interval; 0: the interval is about the questions alone.
    """

    ruling: Ruling
    reason: str
    measure: str
    unit: str
    lower_is_better: bool
    champion: float | None
    candidate: float | None
    difference: float | None
    low: float | None
    high: float | None
    share_not_better: float | None
    margin: float
    max_loss: float
    n_questions: int
    n_clusters: int
    champion_seeds: int
    candidate_seeds: int
    seed_df: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and tables."""
        return asdict(self)


def decide(
    candidate: Sequence[Measure],
    champion: Sequence[Measure],
    clusters: Sequence[str],
    *,
    margin: float = MARGIN,
    max_loss: float = MAX_LOSS,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> Promotion:
    """Whether the candidate takes the champion's place; one measure per seed of either, all over the same questions.

    The interval is the paired bootstrap over clusters of questions of the difference of the means over seeds. Where
    one of them has two seeds or more, their spread is added with the weight 1/n + 1/n as on the leaderboard (see
    `SeedNoise`); with one seed each it is not known, and the reason says so.

    Raises DataError if a side has no measure, or measures differ; ConfigError unless 0 <= margin <= max_loss.
    """
    if not 0 <= margin <= max_loss < math.inf:
        raise ConfigError(f"margin {margin:g} and max_loss {max_loss:g}: 0 <= margin <= max_loss is needed")
    first = _one_measure(candidate, champion)
    sign = -1.0 if first.lower_is_better else 1.0
    values = [np.array([one.estimate for one in side]) for side in (candidate, champion)]
    means = [float(side.mean()) for side in values]
    n_clusters = cluster_numbers(clusters)[1]
    draws = resampled([*candidate, *champion], clusters, n_resamples=n_resamples, seed=seed)
    sides = zip(values, (draws[: len(candidate)], draws[len(candidate) :]), strict=True)
    noise = pooled(side for side in sides if np.isfinite(side[0]).all())
    away = _draws(draws, len(candidate), noise, np.random.default_rng([seed, 1]))
    found = difference_of(sign * (means[0] - means[1]), sign * away)
    ends = (found.low, found.high) if n_clusters >= MIN_CLUSTERS else (math.nan, math.nan)
    alike = _alike(candidate, champion) if ends[1] - ends[0] <= NO_SPREAD else ""
    if alike:
        ends = _without_spread(found.estimate, first.unit, counting_clusters([*candidate, *champion], clusters))
    ruling, reason = _rule(found.estimate, *ends, margin, max_loss, difference_unit(first.unit), alike)
    if n_clusters < MIN_CLUSTERS:
        reason = f"The benchmark has {n_clusters} clusters of questions, fewer than {MIN_CLUSTERS}; the champion stays."
    elif noise is None:
        reason += " One seed each: the spread between training runs is not in the interval."
    return Promotion(
        ruling=ruling,
        reason=reason,
        measure=first.name,
        unit=first.unit,
        lower_is_better=first.lower_is_better,
        champion=_known(means[1]),
        candidate=_known(means[0]),
        difference=_known(found.estimate),
        low=_known(ends[0]),
        high=_known(ends[1]),
        share_not_better=_known(found.share_not_above),
        margin=margin,
        max_loss=max_loss,
        n_questions=max(one.n_questions for one in (*candidate, *champion)),
        n_clusters=n_clusters,
        champion_seeds=len(champion),
        candidate_seeds=len(candidate),
        seed_df=noise.df if noise else 0,
    )


def difference_unit(unit: str) -> str:
    """Unit of a difference of two values in `unit`."""
    return "percent points" if unit == "percent" else unit


def _one_measure(candidate: Sequence[Measure], champion: Sequence[Measure]) -> Measure:
    for name, side in (("candidate", candidate), ("champion", champion)):
        if not side:
            raise DataError(f"the {name} has no evaluation on the benchmark; evaluate it first")
    first = champion[0]
    for one in (*candidate, *champion):
        if (one.name, one.group, one.unit) != (first.name, first.group, first.unit):
            raise DataError(f"{one.name!r} [{one.unit}] and {first.name!r} [{first.unit}] are different measures")
    return first


def _draws(
    draws: NDArray[np.float64], n_candidate: int, noise: SeedNoise | None, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draws of the difference of the means over seeds, with seed noise where it is known."""
    away: NDArray[np.float64] = draws[:n_candidate].mean(axis=0) - draws[n_candidate:].mean(axis=0)
    if noise is not None:
        weight = 1 / n_candidate + 1 / (len(draws) - n_candidate)
        away += rng.standard_normal(len(away)) * np.sqrt(weight * noise.draws(rng, len(away)))
    return away


def _alike(candidate: Sequence[Measure], champion: Sequence[Measure]) -> str:
    """What leaves nothing to resample, as a sentence."""
    values = {one.estimate for one in (*candidate, *champion)}
    if values <= {0.0, 100.0} and candidate[0].unit == "percent":
        sides = ("wrong" if side[0].estimate == 0 else "right" for side in (candidate, champion))
        return "All answers were alike: {} of the candidate, {} of the champion.".format(*sides)
    return "Candidate and champion were alike on every question."


def _without_spread(estimate: float, unit: str, n_clusters: int) -> tuple[float, float]:
    """Ends of the interval where there is nothing to resample; see the top of this module."""
    if unit != "percent":
        return math.nan, math.nan
    return ends_without_spread(estimate, n_clusters)


def _rule(
    difference: float, low: float, high: float, margin: float, max_loss: float, unit: str, alike: str
) -> tuple[Ruling, str]:
    """The ruling and its reason; see the top of this module. `alike`: why there is nothing to resample."""
    ruling, reason = _ruled(difference, low, high, margin, max_loss, unit)
    if alike and math.isnan(low):
        reason = f"There is no interval of a difference in {unit} without any spread; the champion stays."
    return ruling, f"{alike} {reason}".strip()


def _ruled(difference: float, low: float, high: float, margin: float, max_loss: float, unit: str) -> tuple[Ruling, str]:
    if math.isnan(low) or math.isnan(high):
        return "keep", "The difference is not defined, as the metric has no value on some answers; the champion stays."
    form = "+.2f" if unit in ("percent points", "points") else "+.4f"
    told = f"candidate - champion is {difference:{form}} {unit}, 95 % interval {low:{form}} to {high:{form}}"
    if high < -margin:
        return "keep", f"Worse than the champion beyond the interval: {told}, all of it below {_minus(margin)}."
    if low < -max_loss:
        return "keep", (
            f"Not shown to be worse, but a loss of more than {max_loss:g} {unit} is not ruled out: {told}. "
            "The champion stays; more questions or more seeds make the interval narrower."
        )
    if low > 0:
        return "promote", f"Better than the champion beyond the interval: {told}."
    return "promote", (
        f"Not worse than the champion beyond the interval: {told}, which is not all below {_minus(margin)}; a loss of "
        f"more than {max_loss:g} {unit} is ruled out."
    )


def _minus(margin: float) -> str:
    return f"-{margin:g}" if margin else "0"


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
