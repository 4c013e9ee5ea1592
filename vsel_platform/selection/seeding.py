"""Seeds for k-means: greedy k-means++, then swaps that lower the cost."""

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vsel_platform.selection.workers import Workers

Vectors = NDArray[np.float32]

TRIALS = 2
CANDIDATES_PER_BATCH = 128
SWAP_CANDIDATES_PER_BATCH = 64
SWAPS_PER_CLUSTER = 4
# Squared distances below this share of the mean squared norm are rounding, that is zero.
ZERO = 1e-6


class _Sample:
    """Rows float32 [m, d] with what their distances need.

    |x - y|^2 = [x, |x|^2, 1] . [-2y, 1, |y|^2], so that distances are one matrix product.
    """

    def __init__(self, rows: Vectors, pool: Workers) -> None:
        norms = np.einsum("ij,ij->i", rows, rows)[:, None]
        ones = np.ones_like(norms)
        self.rows = rows
        self.pool = pool
        self.zero = ZERO * float(norms.mean())
        self.left = np.concatenate([rows, norms, ones], axis=1)
        self.right = np.concatenate([-2 * rows, ones, norms], axis=1)

    def distances(self, chosen: NDArray[np.int64]) -> Vectors:
        """Squared distances float32 [len(chosen), m] from the chosen rows to all rows."""
        points = self.left[chosen]
        result = np.empty((len(chosen), len(self.rows)), np.float32)

        def block(part: slice) -> None:
            result[:, part] = points @ self.right[part].T

        self.pool.blocks(block, len(self.rows), 1024)
        return result

    def all_distances(self, chosen: NDArray[np.int64]) -> Vectors:
        """The same in one piece, for use on one thread."""
        return np.asarray(self.left[chosen] @ self.right.T, np.float32)

    def draw(self, distances: NDArray[np.float32], size: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """`size` positions, with replacement, with probability in proportion to the squared distances."""
        cumulative = np.cumsum(np.where(distances < self.zero, 0, distances), dtype=np.float64)
        found = np.searchsorted(cumulative, rng.random(size) * cumulative[-1], side="right")
        return np.asarray(np.minimum(found, len(distances) - 1), np.int64)

    def has_distance(self, distances: NDArray[np.float32]) -> bool:
        """Whether any distance is more than rounding."""
        return bool((distances >= self.zero).any())


def choose_seeds(rows: Vectors, n_clusters: int, rng: np.random.Generator, pool: Workers) -> Vectors:
    """Up to `n_clusters` rows that are good first centroids, float32 [k, d]; fewer if fewer rows are distinct."""
    sample = _Sample(rows, pool)
    seeds = _greedy_plus_plus(sample, n_clusters, rng)
    return rows[_swap(sample, seeds, SWAPS_PER_CLUSTER * len(seeds), rng) if len(seeds) > 1 else seeds]


def _greedy_plus_plus(sample: _Sample, n_clusters: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """k-means++ with the best of `TRIALS` candidates per step.

    Candidates are drawn in batches, so that their distances are one matrix product; inside a batch each step draws
    again with the present weights.
    """
    chosen = [int(rng.integers(len(sample.rows)))]
    nearest = sample.distances(np.array(chosen))[0]
    while len(chosen) < n_clusters and sample.has_distance(nearest):
        batch = sample.draw(nearest, min(CANDIDATES_PER_BATCH, TRIALS * n_clusters), rng)
        distances = sample.distances(batch)
        for _ in range(min(max(1, len(batch) // TRIALS), n_clusters - len(chosen))):
            weights = nearest[batch]
            if not sample.has_distance(weights):
                break
            trial = sample.draw(weights, TRIALS, rng)
            after = np.minimum(distances[trial], nearest)
            best = int(after.sum(axis=1, dtype=np.float64).argmin())
            chosen.append(int(batch[trial[best]]))
            nearest = after[best]
    return np.array(chosen)


@dataclass(slots=True)
class _Nearest:
    """For every row the nearest and the second nearest centroid, and their squared distances; all [m]."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    d_first: NDArray[np.float32]
    d_second: NDArray[np.float32]

    @classmethod
    def of(cls, sample: _Sample, rows: NDArray[np.int64], centroids: Vectors) -> "_Nearest":
        """Computed for some rows of the sample; `centroids` in the form of `_Sample.right`, [k, d + 2]."""
        distances = sample.left[rows] @ centroids.T
        every = np.arange(len(rows))
        first = distances.argmin(axis=1)
        d_first = distances[every, first]
        distances[every, first] = np.inf
        second = distances.argmin(axis=1)
        return cls(first, second, d_first, distances[every, second])

    def put(self, rows: NDArray[np.int64], other: "_Nearest") -> None:
        """Replace the entries of `rows`."""
        self.first[rows], self.second[rows] = other.first, other.second
        self.d_first[rows], self.d_second[rows] = other.d_first, other.d_second

    def offer(self, rows: NDArray[np.int64], centroid: int, distances: NDArray[np.float32]) -> None:
        """A new centroid that is nearer to `rows` than their second: it becomes their first or their second."""
        wins = distances < self.d_first[rows]
        won, lost = rows[wins], rows[~wins]
        self.second[won], self.d_second[won] = self.first[won], self.d_first[won]
        self.first[won], self.d_first[won] = centroid, distances[wins]
        self.second[lost], self.d_second[lost] = centroid, distances[~wins]


def _swap(sample: _Sample, seeds: NDArray[np.int64], n_steps: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Local search: a row drawn like in k-means++ takes the place of the centroid whose loss costs least.

    A swap happens only if the cost of the sample falls.
    """
    chosen = seeds.copy()
    centroids = sample.right[chosen]
    parts = sample.pool.blocks(
        lambda rows: _Nearest.of(sample, np.arange(rows.start, rows.stop), centroids), len(sample.rows)
    )
    names = ("first", "second", "d_first", "d_second")
    near = _Nearest(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
    removal = _removal_costs(near, len(chosen))
    for batch, batch_distances in _candidates(sample, near, n_steps, rng):
        for row, distances in zip(batch, batch_distances, strict=True):
            closer = np.flatnonzero(distances < near.d_second)
            gain, victim = _best_swap(near, removal, closer, distances[closer])
            if gain > 0:
                chosen[victim] = row
                centroids[victim] = sample.right[row]
                orphans = np.flatnonzero((near.first == victim) | (near.second == victim))
                near.offer(closer, victim, distances[closer])
                near.put(orphans, _Nearest.of(sample, orphans, centroids))
                removal = _removal_costs(near, len(chosen))
    return chosen


def _candidates(
    sample: _Sample, near: _Nearest, n_steps: int, rng: np.random.Generator
) -> Iterator[tuple[NDArray[np.int64], Vectors]]:
    """Batches of candidates and their distances, float32 [batch, m].

    A batch is drawn, with the distances of that moment, before the one before it is used: so its matrix product
    runs on another thread meanwhile.
    """
    waiting: list[tuple[NDArray[np.int64], Future[Vectors]]] = []
    for start in range(0, n_steps, SWAP_CANDIDATES_PER_BATCH):
        if not sample.has_distance(near.d_first):
            break
        batch = sample.draw(near.d_first, min(SWAP_CANDIDATES_PER_BATCH, n_steps - start), rng)
        waiting.append((batch, sample.pool.submit(sample.all_distances, batch)))
        if len(waiting) > 1:
            ready, distances = waiting.pop(0)
            yield ready, distances.result()
    for ready, distances in waiting:
        yield ready, distances.result()


def _removal_costs(near: _Nearest, n_centroids: int) -> NDArray[np.float64]:
    """What the cost rises by if a centroid goes away, [k]."""
    rise = (near.d_second - near.d_first).astype(np.float64)
    return np.bincount(near.first, weights=rise, minlength=n_centroids).astype(np.float64)


def _best_swap(
    near: _Nearest, removal: NDArray[np.float64], closer: NDArray[np.int64], distances: NDArray[np.float32]
) -> tuple[float, int]:
    """(fall of the cost, centroid to replace) of the best swap with a candidate.

    `closer` are the rows that are nearer to the candidate than to their second centroid: for all others the
    candidate changes nothing, which makes a step cheap.
    """
    d_first, d_second = near.d_first[closer], near.d_second[closer]
    with_candidate = np.minimum(d_first, distances)
    relief = (np.minimum(d_second, distances) - with_candidate) - (d_second - d_first)
    costs = removal + np.bincount(near.first[closer], weights=relief, minlength=len(removal))
    victim = int(costs.argmin())
    return float((d_first - with_candidate).sum(dtype=np.float64)) - float(costs[victim]), victim
