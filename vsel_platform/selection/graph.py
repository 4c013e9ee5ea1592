"""Nearest-neighbour graphs of unit vectors, exact for thousands of rows and by inverted lists for more."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vsel_platform.errors import SelectionError
from vsel_platform.selection.kmeans import MIN_DIMENSIONS, leading_components, lloyd
from vsel_platform.selection.workers import Workers, workers

Indices = NDArray[np.int64]
Vectors = NDArray[np.float32]
EXACT_ROWS = 20_000
ROWS_PER_LIST = 256
PROBED_LISTS = 8
TRAINING_ROWS_PER_LIST = 64
TRAINING_ITERATIONS = 5
ROWS_PER_BLOCK = 512
# Float32 products of the same vectors differ in their last digits with the shape of a block: 5 decimals count.
SCALE = 100_000
NONE = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Graph:
    """Nearest OTHER rows of every row, best first: places int64 [n, k] (-1: none), cosines float32 [n, k]."""

    neighbours: Indices
    cosines: Vectors

    @property
    def distances(self) -> NDArray[np.float64]:
        """Euclidean distances of the unit vectors, float64 [n, k]; infinite where there is no neighbour."""
        squared = np.maximum(0.0, 2.0 - 2.0 * self.cosines.astype(np.float64))
        return np.asarray(np.where(self.neighbours >= 0, np.sqrt(squared), np.inf))


def knn_graph(unit: Vectors, k: int, *, seed: int = 0, n_threads: int = 0) -> Graph:
    """Graph of unit vectors float32 [n, d]; cosines to 5 decimals, equal ones by index, the row itself left out.

    Up to EXACT_ROWS rows it is exact. Beyond, rows are put into lists by a seeded k-means, and each row is compared
    with those of the lists nearest to it, which finds nearly all neighbours. The number of threads (0 = all) does not
    change the result. Raises SelectionError for no rows, k < 1, or a value that is not finite.
    """
    n = len(unit)
    if n < 1 or k < 1:
        raise SelectionError(f"a neighbour graph needs rows and neighbours; got {n} rows and k = {k}")
    data = np.ascontiguousarray(unit, np.float32)
    if not np.isfinite(data.sum()):
        raise SelectionError("a neighbour graph needs finite vectors; leave rows without a vector out")
    k = min(k, n - 1)
    with workers(n_threads) as pool:
        if n > EXACT_ROWS:
            return _by_lists(data, k, seed, pool)
        everything, rows = slice(None), np.arange(n)
        best = pool.blocks(lambda b: np.sort(_best(data, rows[b], everything, k), axis=1)[:, :k], n, ROWS_PER_BLOCK)
    return _graph(np.concatenate(best), n)


def _by_lists(data: Vectors, k: int, seed: int, pool: Workers) -> Graph:
    n = len(data)
    probes = _nearest_lists(data, n // ROWS_PER_LIST, seed, pool)
    queries, query_starts = _grouped(probes.ravel())
    members, member_starts = _grouped(probes[:, 0])
    keys = np.full((*probes.shape, k), NONE)

    def search(number: int) -> None:
        own = members[member_starts[number] : member_starts[number + 1]]
        asking = queries[query_starts[number] : query_starts[number + 1]]
        rows, slots = np.divmod(asking, probes.shape[1])
        for start in range(0, len(rows) if len(own) else 0, ROWS_PER_BLOCK):
            block = slice(start, start + ROWS_PER_BLOCK)
            found = _best(data, rows[block], own, k)
            keys[rows[block], slots[block], : found.shape[1]] = found

    pool.map(search, range(len(member_starts) - 1))
    best = pool.blocks(lambda rows: np.sort(keys[rows].reshape(-1, probes.shape[1] * k), axis=1)[:, :k], n)
    return _graph(np.concatenate(best), n)


def _nearest_lists(data: Vectors, n_lists: int, seed: int, pool: Workers) -> NDArray[np.int32]:
    """Numbers int32 [n, PROBED_LISTS] of the lists nearest to each row, the row's own first."""
    import faiss

    rng = np.random.default_rng(seed)
    coarse = leading_components(data, rng, pool) if data.shape[1] >= MIN_DIMENSIONS else data
    sample = coarse[np.sort(rng.choice(len(data), min(len(data), TRAINING_ROWS_PER_LIST * n_lists), replace=False))]
    seeds = sample[np.sort(rng.choice(len(sample), n_lists, replace=False))]
    index = faiss.IndexFlatL2(coarse.shape[1])
    index.add(lloyd(sample, seeds, TRAINING_ITERATIONS, 0.0, pool).centroids)
    found = pool.blocks(lambda rows: index.search(coarse[rows], min(PROBED_LISTS, n_lists))[1], len(data))
    return np.concatenate(found).astype(np.int32)


def _grouped(labels: NDArray[np.int32]) -> tuple[Indices, Indices]:
    """Places in order of their label, and where each label's begin (one more at the end)."""
    ends = np.cumsum(np.bincount(labels))
    return np.argsort(labels, kind="stable"), np.concatenate([[0], ends])


def whole_cosines(a: Vectors, b: Vectors) -> Vectors:
    """Cosines of the unit rows of a [m, d] and b [n, d] as whole numbers of 1 / SCALE, float32 [m, n]."""
    return np.asarray(np.rint((a @ b.T) * np.float32(SCALE)))


def _best(data: Vectors, rows: Indices, others: Indices | slice, k: int) -> Indices:
    """Keys int64 [b, min(k, m)] of the k most alike of `others` for each of `rows`, unsorted."""
    n = len(data)
    numbers = np.arange(n)[others]
    cosines = whole_cosines(data[rows], data[others]).astype(np.int64)
    # One whole number per pair: the smaller, the more alike, and among equals the lower index.
    keys = (SCALE - cosines) * n + numbers
    keys[rows[:, None] == numbers] = NONE
    return np.asarray(keys if k >= len(numbers) else np.partition(keys, max(0, k - 1), axis=1)[:, :k])


def _graph(keys: Indices, n: int) -> Graph:
    """The graph of sorted keys int64 [n, k]."""
    known = keys != NONE
    cosines = np.where(known, SCALE - keys // n, 0) / SCALE
    return Graph(np.where(known, keys % n, -1), cosines.astype(np.float32))
