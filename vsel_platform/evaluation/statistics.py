"""Intervals of benchmark metrics: whole clusters of questions are resampled, the same ones for whatever is compared."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vsel_platform.errors import DataError
from vsel_platform.evaluation.benchmark import Measure

Floats = NDArray[np.float64]

LEVEL = 0.95
N_RESAMPLES = 1_000
# Draws that are in memory at a time: a block of resamples, not all of them.
_BLOCK_DRAWS = 2_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A metric over all questions and its 95 % interval, in the metric's unit; NaN where it is not defined."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference with its 95 % interval, and the share of resamples in which it is zero or below."""

    estimate: float
    low: float
    high: float
    share_not_above: float


def cluster_numbers(clusters: Sequence[str]) -> tuple[NDArray[np.int64], int]:
    """Number of every question's cluster int64 [n], by sorted name, and how many clusters there are.

    Raises DataError without any question.
    """
    if not len(clusters):
        raise DataError("there is no question to compute an interval of; evaluate a benchmark that has questions")
    place = {name: number for number, name in enumerate(sorted(set(clusters)))}
    return np.fromiter((place[name] for name in clusters), np.int64, len(clusters)), len(place)


def cluster_counts(clusters: Sequence[str], n_resamples: int = N_RESAMPLES, seed: int = 0) -> NDArray[np.int32]:
    """How often each cluster is in each resample, int32 [n_resamples, clusters], clusters by sorted name.

    Every resample draws as many clusters as there are, with replacement (Davison and Hinkley, Bootstrap Methods and
    their Application, 1997, section 3.8, strategy 1). All of it in memory; `resampled` needs a block at a time.
    """
    return np.concatenate(list(_blocks(cluster_numbers(clusters)[1], n_resamples, seed)))


def _blocks(n_clusters: int, n_resamples: int, seed: int) -> Iterator[NDArray[np.int32]]:
    rng = np.random.default_rng(seed)
    size = max(1, _BLOCK_DRAWS // n_clusters)
    for start in range(0, n_resamples, size):
        rows = min(size, n_resamples - start)
        drawn = rng.integers(0, n_clusters, (rows, n_clusters), dtype=np.int64)
        drawn += np.arange(rows, dtype=np.int64)[:, None] * n_clusters
        counts = np.bincount(drawn.ravel(), minlength=rows * n_clusters)
        yield counts.reshape(rows, n_clusters).astype(np.int32)


def resampled(
    measures: Sequence[Measure], clusters: Sequence[str], *, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> Floats:
    """Values of measures over the same questions on the same resamples, float64 [measures, n_resamples].

    NaN where a measure is not defined on a resample. The values do not depend on the order of the questions, beyond
    rounding. Raises DataError if a measure has other questions than `clusters`.
    """
    numbers, n_clusters = cluster_numbers(clusters)
    sums = [_cluster_sums(measure, numbers, n_clusters) for measure in measures]
    ends = np.cumsum([part.shape[1] for part in sums])
    together = np.concatenate(sums, axis=1)
    values = np.empty((len(measures), n_resamples))
    start = 0
    for counts in _blocks(n_clusters, n_resamples, seed):
        parts = np.split(counts.astype(np.float64) @ together, ends[:-1], axis=1)
        for row, (measure, part) in enumerate(zip(measures, parts, strict=True)):
            values[row, start : start + len(counts)] = measure.value(part)
        start += len(counts)
    return values


def _cluster_sums(measure: Measure, numbers: NDArray[np.int64], n_clusters: int) -> Floats:
    """Statistics of a measure summed by cluster, float64 [clusters, k]."""
    if len(measure.statistics) != len(numbers):
        raise DataError(
            f"measure {measure.name!r} has {len(measure.statistics)} questions, the clusters are of {len(numbers)}; "
            "compare evaluations of the same benchmark version"
        )
    columns = (np.bincount(numbers, weights=column, minlength=n_clusters) for column in measure.statistics.T)
    return np.stack(list(columns), axis=1)


def percentiles(values: Floats, level: float = LEVEL) -> tuple[float, float]:
    """Ends of the central `level` of `values` [n] without the NaN ones; NaN if nothing is left."""
    known = values[~np.isnan(values)]
    if not known.size:
        return math.nan, math.nan
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def interval(measure: Measure, clusters: Sequence[str], *, n_resamples: int = N_RESAMPLES, seed: int = 0) -> Interval:
    """A measure with the 95 % percentile interval of the cluster bootstrap; all NaN if the measure is not defined.

    `clusters` are names of the clusters of its questions. The interval is about the choice of questions, given the
    answers: what another training run would have answered is not in it. A share of 0 or 100 % has nothing to resample;
    its open end is that of the exact binomial interval of so many clusters (Clopper and Pearson 1934).
    """
    estimate = measure.estimate
    if math.isnan(estimate):
        return Interval(math.nan, math.nan, math.nan)
    values = resampled([measure], clusters, n_resamples=n_resamples, seed=seed)[0]
    low, high = percentiles(values)
    if low == high and is_at_an_end(measure):
        reach = exact_reach(counting_clusters([measure], clusters))
        low, high = max(low - reach, 0.0), min(high + reach, 100.0)
    return Interval(estimate, low, high)


def is_at_an_end(measure: Measure) -> bool:
    """Whether a measure is a share of 0 or 100 %."""
    return measure.unit == "percent" and measure.estimate in (0.0, 100.0)


def counting_clusters(measures: Sequence[Measure], clusters: Sequence[str]) -> int:
    """Clusters with a question that counts in one of the measures."""
    counting = np.any([measure.statistics.any(axis=1) for measure in measures], axis=0)
    return len({cluster for cluster, counts in zip(clusters, counting, strict=True) if counts})


def exact_reach(n_clusters: int) -> float:
    """How far [percent points] the exact binomial 95 % interval of so many clusters that are all alike reaches from
    0 or 100 % (Clopper and Pearson, Biometrika 26 (1934) 404)."""
    return float(100 * (1 - ((1 - LEVEL) / 2) ** (1 / max(1, n_clusters))))


def paired_difference(
    a: Measure, b: Measure, clusters: Sequence[str], *, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> Difference:
    """a - b over the same questions in the same order, with the 95 % percentile interval of the cluster bootstrap.

    Both are computed on the same resamples, so that what makes a question hard for both cancels. NaN if one of them
    is not defined.
    """
    estimate = a.estimate - b.estimate
    if math.isnan(estimate):
        return Difference(math.nan, math.nan, math.nan, math.nan)
    first, second = resampled([a, b], clusters, n_resamples=n_resamples, seed=seed)
    found = difference_of(estimate, first - second)
    if found.low == found.high and a.unit == "percent":
        low, high = ends_without_spread(estimate, counting_clusters([a, b], clusters))
        return replace(found, low=low, high=high)
    return found


def ends_without_spread(difference: float, n_clusters: int) -> tuple[float, float]:
    """95 % interval of a difference of two shares [percent points] that is the same on all of `n_clusters`: those that
    were not asked may be different, as many as `exact_reach` leaves open, each by as much as shares can differ."""
    reach = exact_reach(n_clusters) / 100
    return difference - reach * (100 + difference), difference + reach * (100 - difference)


def difference_of(estimate: float, draws: Floats) -> Difference:
    """A difference from its estimate and its draws [n]; draws that are NaN count nowhere."""
    known = draws[~np.isnan(draws)]
    share = float((known <= 0).mean()) if known.size else math.nan
    return Difference(estimate, *percentiles(known), share)
