"""How firmly a ranking stands: intervals of ranks, and Kendall's tau between budgets and between seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from vsel_platform.evaluation.run_groups import RunGroup
from vsel_platform.evaluation.statistics import LEVEL

Floats = NDArray[np.float64]

MIN_LABELS = 3
"""Fewer labels have no order to agree on."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Kendall's tau-b between rankings, 1 for the same order, -1 for the reverse.

    kind: `budgets` compares the means over seeds at two budgets; `seeds` is the mean over all pairs of seeds at one
    budget (first = second). n_labels: ranked labels, the smallest number where pairs differ. n_pairs: pairs of
    rankings.
    """

    kind: str
    first: float
    second: float
    tau: float
    n_labels: int
    n_pairs: int


def ranks(values: Floats) -> NDArray[np.int64]:
    """Ranks along the first axis of [labels, ...], 1 for the largest; equal values share the better rank."""
    places: NDArray[np.int64] = 1 + (values[None] > values[:, None]).sum(axis=1)
    return places


def rank_intervals(draws: Floats) -> NDArray[np.int64]:
    """95 % interval of every label's rank, int64 [labels, 2], from joint draws of the values [labels, B]."""
    found = np.stack([1 + (draws > row).sum(axis=0) for row in draws])
    ends: Floats = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1, method="inverted_cdf")
    return ends.T.astype(np.int64)


def kendall_tau(first: Floats, second: Floats) -> float | None:
    """Tau-b of two columns [n]; None below three values or if one of them is constant.

    Kendall, Biometrika 33 (1945) 239: concordant minus discordant pairs over the root of the untied ones of each.
    """
    if len(first) < MIN_LABELS:
        return None
    upper = np.triu_indices(len(first), 1)
    a, b = (np.sign(column[:, None] - column[None, :])[upper] for column in (first, second))
    untied = np.count_nonzero(a) * np.count_nonzero(b)
    return float((a * b).sum() / np.sqrt(untied)) if untied else None


def agreements(groups: Sequence[RunGroup]) -> list[Agreement]:
    """Agreement of every pair of budgets, then of the seeds at every budget, where at least three labels can be
    compared."""
    budgets: dict[float, dict[str, RunGroup]] = {}
    for group in sorted(groups, key=lambda group: group.budget):
        budgets.setdefault(group.budget, {})[group.label] = group
    found = [_between_budgets(a, b, budgets) for a, b in combinations(budgets, 2)]
    found += [_between_seeds(budget, list(labels.values())) for budget, labels in budgets.items()]
    return [one for one in found if one is not None]


def _between_budgets(a: float, b: float, budgets: Mapping[float, Mapping[str, RunGroup]]) -> Agreement | None:
    labels = sorted(budgets[a].keys() & budgets[b].keys())
    first, second = (np.array([budgets[budget][label].value for label in labels]) for budget in (a, b))
    tau = kendall_tau(first, second)
    return None if tau is None else Agreement("budgets", a, b, tau, len(labels), 1)


def _between_seeds(budget: float, groups: Sequence[RunGroup]) -> Agreement | None:
    values: dict[int, dict[str, float]] = {}
    for group in groups:
        for run, value in zip(group.runs, group.values.tolist(), strict=True):
            values.setdefault(run.seed, {})[group.label] = value
    taus, sizes = [], []
    for a, b in combinations(sorted(values), 2):
        labels = sorted(values[a].keys() & values[b].keys())
        tau = kendall_tau(*(np.array([values[seed][label] for label in labels]) for seed in (a, b)))
        if tau is not None:
            taus.append(tau)
            sizes.append(len(labels))
    return Agreement("seeds", budget, budget, float(np.mean(taus)), min(sizes), len(taus)) if taus else None
