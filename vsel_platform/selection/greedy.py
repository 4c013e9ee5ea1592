"""Greedy choices on a neighbour graph: far apart, covering, or weighed against neighbours. Ties go to the lower row."""

import heapq

import numpy as np
from numpy.typing import NDArray

from vsel_platform.selection.graph import SCALE, Graph, Vectors, whole_cosines

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


def k_center(graph: Graph, scores: Floats, count: int) -> Indices:
    """`count` rows far apart (greedy k-centre, Sener & Savarese, arXiv 1708.00489, on a graph), in order.

    The next row is the one farthest from the chosen ones; rows that are no neighbour of any count as farthest, the
    highest scores [n] first.
    """
    distances = graph.distances
    nearest = np.full(len(scores), np.inf)
    queue = [(-np.inf, -score, row) for row, score in enumerate(scores.tolist())]
    heapq.heapify(queue)
    chosen: list[int] = []
    taken = np.zeros(len(scores), np.bool_)
    starts, sources, incoming = _incoming(graph, distances)
    while queue and len(chosen) < count:
        negative, _, row = heapq.heappop(queue)
        if taken[row] or -negative > nearest[row]:
            continue  # an entry from before a nearer row was chosen
        taken[row] = True
        chosen.append(row)
        found = slice(starts[row], starts[row + 1])
        others = [*sources[found].tolist(), *graph.neighbours[row].tolist()]
        for other, distance in zip(others, [*incoming[found].tolist(), *distances[row].tolist()], strict=True):
            if other >= 0 and not taken[other] and distance < nearest[other]:
                nearest[other] = distance
                heapq.heappush(queue, (-distance, -float(scores[other]), other))
    return np.array(chosen, np.int64)


def facility_location(graph: Graph, scores: Floats, count: int) -> Indices:
    """`count` rows that cover all rows best: the sum over rows of the best cosine to a chosen one (lazy greedy,
    Minoux 1978; within 1 - 1/e of the best), in order. Equal gains go by the scores [n]."""
    covered = np.zeros(len(scores))
    # Whole numbers of 1 / SCALE: their sums are exact, so that equal gains are found equal.
    starts, sources, cosines = _incoming(graph, np.rint(np.maximum(graph.cosines.astype(np.float64), 0) * SCALE))
    gains = SCALE + np.bincount(np.repeat(np.arange(len(scores)), np.diff(starts)), cosines, len(scores))
    queue = list(zip((-gains).tolist(), (-scores).tolist(), range(len(scores)), strict=True))
    heapq.heapify(queue)
    chosen: list[int] = []
    while queue and len(chosen) < count:
        negative, second, row = heapq.heappop(queue)
        found = slice(starts[row], starts[row + 1])
        reached, near = sources[found], cosines[found]
        gain = SCALE - float(covered[row]) + float(np.maximum(near - covered[reached], 0).sum())
        if gain < -negative:
            heapq.heappush(queue, (-gain, second, row))
            continue
        chosen.append(row)
        covered[row] = SCALE
        covered[reached] = np.maximum(covered[reached], near)
    return np.array(chosen, np.int64)


def d2_pruning(graph: Graph, scores: Floats, count: int, *, forward: float, reverse: float) -> Indices:
    """`count` rows by D2 pruning (Maharana et al., arXiv 2310.07931), in order.

    Difficulty first gathers from neighbours, s_i + sum_j exp(-forward d_ij^2) s_j (eq. 3); each chosen row then takes
    from its neighbours, s_j - exp(-reverse d_ij^2) s_i (eq. 4). Scores should not be negative.
    """
    squared = graph.distances**2
    known = graph.neighbours >= 0
    weights = np.where(known, np.exp(-forward * np.where(known, squared, 0)), 0.0)
    values = scores + (weights * scores[np.maximum(graph.neighbours, 0)]).sum(axis=1)
    queue = [(-value, row) for row, value in enumerate(values.tolist())]
    heapq.heapify(queue)
    taken = np.zeros(len(scores), np.bool_)
    chosen: list[int] = []
    while queue and len(chosen) < count:
        negative, row = heapq.heappop(queue)
        if taken[row] or -negative != values[row]:
            continue  # an entry from before a neighbour was chosen
        taken[row] = True
        chosen.append(row)
        for other, distance in zip(graph.neighbours[row].tolist(), squared[row].tolist(), strict=True):
            if other >= 0 and not taken[other]:
                values[other] -= np.exp(-reverse * distance) * values[row]
                heapq.heappush(queue, (-float(values[other]), other))
    return np.array(chosen, np.int64)


def without_near_duplicates(graph: Graph, unit: Vectors, scores: Floats, count: int, *, cosine: float) -> Indices:
    """At most `count` rows, highest scores first, none with a cosine above `cosine` to one taken before it
    (SemDeDup, Abbas et al., arXiv 2303.09540, with the score deciding which of a group stays).

    A row whose neighbours in the graph are all near duplicates may have more of them; such rows are compared with
    each other by their unit vectors [n, d], so that a group may be larger than the number of neighbours.
    """
    near = (graph.neighbours >= 0) & (graph.cosines > cosine)
    rows, places = np.nonzero(near)
    others = graph.neighbours[rows, places]
    starts, order = _grouped(np.concatenate([rows, others]), len(scores))
    ends = np.concatenate([others, rows])[order]
    crowded = near.all(axis=1) & (near.shape[1] < len(scores) - 1)
    pool = np.flatnonzero(crowded)
    vectors = unit[pool]
    barred = np.zeros(len(scores), np.bool_)
    chosen: list[int] = []
    for row in np.lexsort((np.arange(len(scores)), -scores)).tolist():
        if len(chosen) == count:
            break
        if barred[row]:
            continue
        chosen.append(row)
        barred[ends[starts[row] : starts[row + 1]]] = True
        if crowded[row]:
            left = ~barred[pool]
            if 2 * left.sum() < len(pool):
                pool, vectors = pool[left], vectors[left]
            found = (whole_cosines(unit[row : row + 1], vectors)[0] / SCALE).astype(np.float32)
            barred[pool[found > cosine]] = True
    return np.array(chosen, np.int64)


def kernel_herding(unit: NDArray[np.float32], count: int, *, bandwidth: float) -> Indices:
    """`count` rows whose mean embedding is nearest to that of all rows: greedy maximum mean discrepancy, in order.

    The kernel is exp(-d^2 / (2 bandwidth^2)) of unit vectors [n, d]; each step takes the row that lowers MMD^2 most
    (COINCIDE, arXiv 2406.10995, section 3.3). All pairs are held: n is the size of a cluster.
    """
    data = unit.astype(np.float64)
    squared = np.maximum(0.0, 2.0 - 2.0 * (data @ data.T)).round(6)
    kernel = np.exp(-squared / (2.0 * bandwidth**2))
    mean = kernel.mean(axis=1)
    own = np.zeros(len(unit))
    free = np.ones(len(unit), np.bool_)
    chosen: list[int] = []
    for size in range(1, min(count, len(unit)) + 1):
        # MMD^2 of the chosen rows and one more, without what is the same for all candidates.
        change = (2.0 * own + np.diagonal(kernel)) / size**2 - 2.0 * mean / size
        row = int(np.argmin(np.where(free, change.round(12), np.inf)))
        chosen.append(row)
        free[row] = False
        own += kernel[row]
    return np.array(chosen, np.int64)


def _incoming(graph: Graph, values: Floats) -> tuple[Indices, Indices, Floats]:
    """Rows that have row i among their neighbours, and the values [n, k] there: starts [n + 1], sources, values."""
    rows, places = np.nonzero(graph.neighbours >= 0)
    starts, order = _grouped(graph.neighbours[rows, places], len(graph.neighbours))
    return starts, rows[order], values[rows, places][order]


def _grouped(keys: Indices, n: int) -> tuple[Indices, Indices]:
    """Where each key of 0 .. n - 1 begins in `order` (one more at the end), and places in the order of their keys."""
    starts = np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=n))])
    return starts, np.argsort(keys, kind="stable")
