"""Nearest-neighbour graphs of unit vectors, exact for thousands of rows and by inverted lists for more."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsel_platform.errors import SelectionError

Indices = NDArray[np.int64]
Vectors = NDArray[np.float32]
EXACT_ROWS = 20_000
ROWS_PER_LIST = 256
PROBED_LISTS = 8
# Float32 products of the same vectors differ in their last digits with the shape of a block.
DECIMALS = 5


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


def knn_graph(unit: Vectors, k: int, *, seed: int = 0) -> Graph:
    """Graph of unit vectors float32 [n, d]; ties by index, the row itself left out.

    Up to EXACT_ROWS rows it is exact; beyond, faiss searches the nearest of the lists of a seeded k-means, which finds
    nearly all neighbours. Does not depend on the number of threads. Raises SelectionError for no rows or k < 1.
    """
    import faiss

    n, d = unit.shape
    if n < 1 or k < 1:
        raise SelectionError(f"a neighbour graph needs rows and neighbours; got {n} rows and k = {k}")
    data = np.ascontiguousarray(unit, np.float32)
    index: Any = faiss.IndexFlatIP(d)
    if n > EXACT_ROWS:
        lists = n // ROWS_PER_LIST
        quantizer = index
        index = faiss.IndexIVFFlat(quantizer, d, lists, faiss.METRIC_INNER_PRODUCT)
        index.cp.seed, index.cp.niter = seed, 10
        index.nprobe = min(PROBED_LISTS, lists)
        index.train(data)
    index.add(data)
    cosines, found = index.search(data, min(k + 1, n))
    return _without_self(found.astype(np.int64), cosines, min(k, n - 1))


def _without_self(found: Indices, cosines: Vectors, k: int) -> Graph:
    """The k best others of each row; a row that is not among its own neighbours loses the last one."""
    rounded = np.where(found >= 0, cosines.round(DECIMALS), -np.inf).astype(np.float32)
    own = found == np.arange(len(found))[:, None]
    rounded[own] = -np.inf
    order = np.lexsort((found, -rounded), axis=1)[:, :k]
    neighbours = np.take_along_axis(found, order, axis=1)
    values = np.take_along_axis(rounded, order, axis=1)
    return Graph(np.where(np.isfinite(values), neighbours, -1), np.where(np.isfinite(values), values, 0))
