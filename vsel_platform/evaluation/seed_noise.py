"""Spread between training runs that differ in their seed alone, apart from the spread that the questions make."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SeedNoise:
    """Variance between seeds, pooled over groups of runs that differ in nothing else.

    variance: s2, as observed on the benchmark's questions [unit squared]. question_variance: v, the part of it that
    the choice of questions explains (two models of equal quality still miss different questions). The bootstrap over
    questions has v already, so what is to be added to it is max(s2 - v, 0). df: degrees of freedom of s2.
    """

    variance: float
    question_variance: float
    df: int

    @property
    def added(self) -> float:
        """Variance of one run that a bootstrap over questions does not hold [unit squared]."""
        return max(self.variance - self.question_variance, 0.0)

    def draws(self, rng: np.random.Generator, n: int) -> Floats:
        """What the added variance may be, float64 [n]: max(s2 * df / chi2(df) - v, 0).

        s2 * df / chi2(df) is the confidence distribution of a variance; normal noise with it is Student t noise with
        `df` degrees of freedom if v is 0.
        """
        drawn: Floats = self.variance * self.df / rng.chisquare(self.df, n) - self.question_variance
        return np.maximum(drawn, 0.0)


def pooled(groups: Iterable[tuple[Floats, Floats]]) -> SeedNoise | None:
    """Noise from groups of (values of the runs [n], the same on resampled questions [n, B]).

    The mean of every group is removed, so a group of n runs gives n - 1 degrees of freedom and one of 1 run none; None
    if no group has two.
    """
    observed = explained = 0.0
    df = 0
    for values, resamples in groups:
        if len(values) < 2:
            continue
        observed += float(((values - values.mean()) ** 2).sum())
        explained += float(np.nanvar(resamples - resamples.mean(axis=0), axis=1).sum())
        df += len(values) - 1
    return SeedNoise(observed / df, explained / df, df) if df else None
