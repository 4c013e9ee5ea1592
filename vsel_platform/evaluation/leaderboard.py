"""Leaderboard: methods x budgets x seeds on one benchmark, against full data and against random selections.

Whether a method differs from random is decided in `random_comparison`. Values and relative values have percentile
intervals of their draws, questions and seeds included (`run_groups`). The random band is mean +- t(n - 1) s
sqrt(1 + 1/n) of the n random runs: where one more random run falls with 95 % chance.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vsel_platform.errors import DataError
from vsel_platform.evaluation.random_comparison import Verdict, against_random
from vsel_platform.evaluation.rank_stability import Agreement, agreements, rank_intervals, ranks
from vsel_platform.evaluation.run_groups import FULL, RANDOM, Run, RunGroup, group_runs
from vsel_platform.evaluation.seed_noise import SeedNoise
from vsel_platform.evaluation.statistics import (
    LEVEL,
    cluster_numbers,
    counting_clusters,
    exact_reach,
    is_at_an_end,
    percentiles,
)

BudgetUnit = Literal["percent", "rows"]

N_RESAMPLES = 4_000
MIN_RANDOM_SEEDS = 5
MIN_CLUSTERS = 20
"""Fewer clusters of questions are too few to resample: nothing is judged."""


@dataclass(frozen=True, slots=True)
class LeaderboardRow:
    """A label at a budget. Values in the measure's unit; None: not known, not defined or not compared.

    low, high: 95 % interval of `value`. seed_sd: standard deviation between its seeds. relative: value over that of
    full data [percent]. difference: value minus the mean of random at the budget, with its 95 % interval; adjusted
    interval and p_adjusted are for all comparisons together. rank: among the labels of the budget, full data apart,
    1 is best, with its 95 % interval. Seconds are means over the seeds.
    """

    label: str
    budget: float
    recipes: tuple[str, ...]
    n_rows: int
    n_seeds: int
    verdict: Verdict
    value: float | None
    low: float | None
    high: float | None
    seed_sd: float | None
    selection_seconds: float | None
    training_seconds: float | None
    relative: float | None = None
    relative_low: float | None = None
    relative_high: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    adjusted_low: float | None = None
    adjusted_high: float | None = None
    p_adjusted: float | None = None
    rank: int | None = None
    rank_low: int | None = None
    rank_high: int | None = None


@dataclass(frozen=True, slots=True)
class RandomBand:
    """Random runs at a budget: mean, extremes, and where one more run falls with 95 % chance (None below five)."""

    budget: float
    n_seeds: int
    mean: float
    smallest: float
    largest: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """Rows by budget and rank, full data last. n_comparisons: with random. critical: c of the adjusted intervals.

    dataset: that all rows were selected from. seed_noise: by budget. notes: what a reader must know before believing
    the rows.
    """

    dataset: str
    measure: str
    group: str
    unit: str
    lower_is_better: bool
    budget_unit: BudgetUnit
    n_questions: int
    n_clusters: int
    n_resamples: int
    n_comparisons: int
    critical: float | None
    rows: tuple[LeaderboardRow, ...]
    bands: tuple[RandomBand, ...]
    agreements: tuple[Agreement, ...]
    seed_noise: Mapping[float, SeedNoise]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and tables."""
        return asdict(self) | {"seed_noise": [{"budget": b, **asdict(n)} for b, n in self.seed_noise.items()]}


def leaderboard(
    runs: Sequence[Run],
    clusters: Sequence[str],
    *,
    dataset: str = "",
    notes: Sequence[str] = (),
    budget_unit: BudgetUnit = "percent",
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> Leaderboard:
    """The leaderboard of runs on selections of one dataset that answered the same questions; `clusters` has the
    cluster of every question. `notes` stand before its own.

    Independent of the order of the runs. Raises DataError for runs that cannot be compared (see `group_runs`), and if
    full data stands at several budgets.
    """
    groups, noise = group_runs(runs, clusters, n_resamples, seed)
    n_clusters = cluster_numbers(clusters)[1]
    first = runs[0].measure
    sign = -1.0 if first.lower_is_better else 1.0
    enough = n_clusters >= MIN_CLUSTERS
    compared, critical = against_random(groups, noise, sign) if enough and noise else ({}, None)
    placed, full = _ranked(groups, sign), _full(groups)
    rows = [
        _row(group, clusters, placed.get(key, {}) | compared.get(key, {}) | _relative(group, full))
        for key, group in groups.items()
    ]
    rows.sort(key=lambda row: (row.budget, row.label == FULL, row.rank or math.inf, row.label))
    contest = [group for group in groups.values() if group.label != FULL and math.isfinite(group.value)]
    return Leaderboard(
        dataset=dataset,
        measure=first.name,
        group=first.group,
        unit=first.unit,
        lower_is_better=first.lower_is_better,
        budget_unit=budget_unit,
        n_questions=max(run.measure.n_questions for run in runs),
        n_clusters=n_clusters,
        n_resamples=n_resamples,
        n_comparisons=len(compared),
        critical=critical,
        rows=tuple(rows),
        bands=tuple(_band(group) for group in contest if group.label == RANDOM),
        agreements=tuple(agreements(contest)),
        seed_noise=noise,
        notes=(*notes, *_notes(groups, noise, n_clusters, "%" if budget_unit == "percent" else " rows")),
    )


def _ranked(groups: Mapping[tuple[str, float], RunGroup], sign: float) -> dict[tuple[str, float], dict[str, Any]]:
    """Rank fields of every group but full data, among those of its budget that have a value."""
    budgets: dict[float, list[RunGroup]] = {}
    for group in groups.values():
        if group.label != FULL and math.isfinite(group.value):
            budgets.setdefault(group.budget, []).append(group)
    placed = {}
    for members in budgets.values():
        places = ranks(sign * np.array([group.value for group in members]))
        ends = rank_intervals(sign * np.stack([group.draws for group in members]))
        for group, place, (low, high) in zip(members, places.tolist(), ends.tolist(), strict=True):
            placed[group.label, group.budget] = {"rank": place, "rank_low": low, "rank_high": high}
    return placed


def _full(groups: Mapping[tuple[str, float], RunGroup]) -> RunGroup | None:
    found = [group for group in groups.values() if group.label == FULL]
    if len(found) > 1:
        budgets = ", ".join(f"{group.budget:g}" for group in found)
        raise DataError(f"runs on full data stand at budgets {budgets}; full data has one budget")
    return found[0] if found else None


def _relative(group: RunGroup, full: RunGroup | None) -> dict[str, Any]:
    if full is None or group is full or not full.value > 0 or not math.isfinite(group.value):
        return {}
    own, whole = _possible(group), _possible(full)
    low, high = percentiles(100 * own / np.where(whole > 0, whole, np.nan))
    return {
        "relative": 100 * group.value / full.value,
        "relative_low": _known(low),
        "relative_high": _known(high),
    }


def _possible(group: RunGroup) -> NDArray[np.float64]:
    """The draws of a group; noise between seeds does not lead a share out of 0 to 100 %."""
    return np.clip(group.draws, 0, 100) if group.runs[0].measure.unit == "percent" else group.draws


def _ends(group: RunGroup, clusters: Sequence[str]) -> tuple[float, float]:
    """Ends of the 95 % interval of a group's value. Where all of its runs are at 0 or at 100 % no draw of questions
    says what others would have given: the interval is at least the exact one (`statistics.interval`)."""
    low, high = percentiles(_possible(group))
    measures = [run.measure for run in group.runs]
    if group.value in (0.0, 100.0) and all(is_at_an_end(measure) for measure in measures):
        reach = exact_reach(counting_clusters(measures, clusters))
        low, high = min(low, max(group.value - reach, 0.0)), max(high, min(group.value + reach, 100.0))
    return low, high


def _row(group: RunGroup, clusters: Sequence[str], fields: Mapping[str, Any]) -> LeaderboardRow:
    verdicts: dict[str, Verdict] = {RANDOM: "random", FULL: "full data"}
    finite = math.isfinite(group.value)
    low, high = _ends(group, clusters) if finite else (math.nan, math.nan)
    own: dict[str, Any] = {
        "label": group.label,
        "budget": group.budget,
        "recipes": tuple(run.recipe for run in group.runs),
        "n_rows": round(fmean(run.n_rows for run in group.runs)),
        "n_seeds": len(group.runs),
        "verdict": verdicts.get(group.label, "not judged"),
        "value": _known(group.value),
        "low": _known(low),
        "high": _known(high),
        "seed_sd": group.seed_sd,
        "selection_seconds": _mean([run.selection_seconds for run in group.runs]),
        "training_seconds": _mean([run.training_seconds for run in group.runs]),
    }
    return LeaderboardRow(**(own | dict(fields)))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _band(random: RunGroup) -> RandomBand:
    from scipy.special import stdtrit  # type: ignore[import-untyped]

    n, mean, spread = len(random.runs), random.value, random.seed_sd
    low, high = None, None
    if spread is not None and n >= MIN_RANDOM_SEEDS:
        half = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * spread * math.sqrt(1 + 1 / n)
        low, high = mean - half, mean + half
        if random.runs[0].measure.unit == "percent":
            low, high = max(low, 0.0), min(high, 100.0)
    return RandomBand(random.budget, n, mean, float(random.values.min()), float(random.values.max()), low, high)


def _notes(
    groups: Mapping[tuple[str, float], RunGroup], noise: Mapping[float, SeedNoise], n_clusters: int, unit: str
) -> list[str]:
    found = []
    for budget in sorted({group.budget for group in groups.values() if group.label != FULL}):
        random = groups.get((RANDOM, budget))
        if random is None:
            found.append(f"Budget {budget:g}{unit}: no random run, so no method is judged.")
        elif len(random.runs) < MIN_RANDOM_SEEDS:
            seeds = f"{len(random.runs)} random seed{'s' if len(random.runs) > 1 else ''}"
            found.append(f"Budget {budget:g}{unit}: {seeds}, {MIN_RANDOM_SEEDS} are needed for a band.")
    if not noise:
        found.append("No label has two seeds at a budget: the spread between seeds is unknown, nothing is judged.")
    if n_clusters < MIN_CLUSTERS:
        clusters = f"{n_clusters} cluster{'s' if n_clusters > 1 else ''}"
        found.append(f"{clusters} of questions: below {MIN_CLUSTERS} nothing is judged.")
    empty = sorted({f"{g.label} at {g.budget:g}{unit}" for g in groups.values() if not math.isfinite(g.value)})
    if empty:
        found.append(f"No value, as the metric is not defined on its answers: {', '.join(empty)}.")
    return found
