"""Runs of a leaderboard grouped by label and budget, with joint draws of what their mean values may be.

A draw holds two sources of chance. Questions: the cluster bootstrap, with the same resampled clusters for all runs.
Seeds: for the mean of n runs, normal noise of variance sigma2 / n, independent between groups, with sigma2 drawn from
the confidence distribution of the pooled seed variance (`SeedNoise.draws`), one draw for all groups of a budget.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vsel_platform.errors import DataError
from vsel_platform.evaluation.benchmark import Measure
from vsel_platform.evaluation.seed_noise import SeedNoise, pooled
from vsel_platform.evaluation.statistics import resampled

Floats = NDArray[np.float64]

RANDOM, FULL = "random", "full"
OWN_NOISE_DF = 4
"""Degrees of freedom from which a budget's own seed variance is believed, if it is the larger one."""


@dataclass(frozen=True, slots=True)
class Run:
    """A selection that was trained on and evaluated.

    label: method with its mode and options; `random` is a random selection, `full` all rows. budget: percent of the
    rows, or rows. seed: of selection and training. measure: over the questions of the benchmark. Seconds are None
    where not known.
    """

    recipe: str
    label: str
    budget: float
    seed: int
    measure: Measure
    selection_seconds: float | None
    training_seconds: float | None
    n_rows: int


@dataclass(frozen=True, slots=True)
class RunGroup:
    """Runs of one label and budget that differ in their seed.

    values: of the runs [n]. questions: mean over the runs on each resample of the questions [B]. draws: the same with
    seed noise [B], equal to `questions` where the seed variance is unknown.
    """

    label: str
    budget: float
    runs: tuple[Run, ...]
    values: Floats
    questions: Floats
    draws: Floats

    @property
    def value(self) -> float:
        """Mean over the seeds; NaN if one of them has no value."""
        return float(self.values.mean())

    @property
    def seed_sd(self) -> float | None:
        """Standard deviation between the seeds; None below two."""
        return float(self.values.std(ddof=1)) if len(self.values) > 1 and math.isfinite(self.value) else None


def group_runs(
    runs: Sequence[Run], clusters: Sequence[str], n_resamples: int, seed: int
) -> tuple[dict[tuple[str, float], RunGroup], Mapping[float, SeedNoise]]:
    """Groups by (label, budget), sorted, and the seed noise of every budget; no noise where no group has two seeds.

    Raises DataError if there is no run, if a label, budget and seed stand twice, or if the runs have different
    measures or questions.
    """
    ordered = sorted(runs, key=lambda run: (run.budget, run.label, run.seed))
    _check(ordered)
    resamples = resampled([run.measure for run in ordered], clusters, n_resamples=n_resamples, seed=seed)
    values = np.array([run.measure.estimate for run in ordered])
    members: dict[tuple[str, float], list[int]] = {}
    for number, run in enumerate(ordered):
        members.setdefault((run.label, run.budget), []).append(number)
    noise = _noise({key: (values[rows], resamples[rows]) for key, rows in members.items()})
    rng = np.random.default_rng([seed, 1])
    variances = _variance_draws(noise, rng, n_resamples)
    groups = {}
    for (label, budget), rows in members.items():
        questions = resamples[rows].mean(axis=0)
        seeds = rng.standard_normal(n_resamples)
        drawn = questions + seeds * np.sqrt(variances[budget] / len(rows)) if budget in variances else questions
        found = tuple(ordered[row] for row in rows)
        groups[label, budget] = RunGroup(label, budget, found, values[rows], questions, drawn)
    return groups, noise


def _check(runs: Sequence[Run]) -> None:
    if not runs:
        raise DataError("a leaderboard needs at least one evaluated run")
    first = runs[0].measure
    seen: dict[tuple[str, float, int], Run] = {}
    for run in runs:
        other = seen.setdefault((run.label, run.budget, run.seed), run)
        if other is not run:
            raise DataError(
                f"recipes {other.recipe!r} and {run.recipe!r} have the same label {run.label!r}, budget "
                f"{run.budget:g} and seed {run.seed}; name the option in which they differ in the label"
            )
        names = (run.measure.name, run.measure.group, run.measure.unit, run.measure.lower_is_better)
        if names != (first.name, first.group, first.unit, first.lower_is_better):
            raise DataError(
                f"recipe {run.recipe!r} is measured by {run.measure.name!r} [{run.measure.unit}], recipe "
                f"{runs[0].recipe!r} by {first.name!r} [{first.unit}]; a leaderboard compares one measure"
            )


def _noise(groups: Mapping[tuple[str, float], tuple[Floats, Floats]]) -> dict[float, SeedNoise]:
    """Seed noise by budget: pooled over all labels and budgets, or over those of the budget if that is larger.

    Small selections may scatter more; a pooled variance alone would then find differences that are none.
    """
    usable = {key: group for key, group in groups.items() if np.isfinite(group[0]).all()}
    everywhere = pooled(usable.values())
    if everywhere is None:
        return {}
    noise = {}
    for budget in sorted({budget for _, budget in groups}):
        own = pooled(group for key, group in usable.items() if key[1] == budget)
        larger = own is not None and own.df >= OWN_NOISE_DF and own.added > everywhere.added
        noise[budget] = own if own is not None and larger else everywhere
    return noise


def _variance_draws(noise: Mapping[float, SeedNoise], rng: np.random.Generator, n: int) -> dict[float, Floats]:
    """Draws of the seed variance of one run by budget; budgets that share a noise share its draws."""
    shared: dict[SeedNoise, Floats] = {}
    for one in noise.values():
        if one not in shared:
            shared[one] = one.draws(rng, n)
    return {budget: shared[one] for budget, one in noise.items()}
