"""Diversity rules: which rows of a group are taken."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vsel_platform.methods.api import Diversity, Floats, Indices, Options, Picking, Signals
from vsel_platform.methods.geometry_scores import SpaceOptions
from vsel_platform.selection.budgets import largest_remainder
from vsel_platform.selection.diversity import normalise_rows
from vsel_platform.selection.graph import Graph, knn_graph
from vsel_platform.selection.greedy import (
    d2_pruning,
    facility_location,
    k_center,
    kernel_herding,
    without_near_duplicates,
)
from vsel_platform.selection.stable_hash import stable_uniform

_SMALLEST_UNIFORM = 2.0**-54
# Rows that a place is chosen from where a group is thinned.
ROWS_PER_PLACE = 4
ROWS_PER_BLOCK = 8192


def top(signals: Signals, picking: Picking, options: Options) -> Indices:
    """The highest scores; ties by id."""
    return _best_first(picking, picking.members)[: picking.count]


class GumbelOptions(Options):
    """Options of the random draw."""

    temperature: float = Field(
        0.05, gt=0, description="In units of the score's spread (its standard deviation); the larger, the more random."
    )


def gumbel(signals: Signals, picking: Picking, options: GumbelOptions) -> Indices:
    """A draw without replacement in which higher scores are likelier: softmax(score / temperature).

    Gumbel-top-k (Kool et al., arXiv 1903.06059); the noise belongs to ids and seed, so a larger budget keeps the rows
    of a smaller one.
    """
    ids = [signals.sample_ids[i] for i in picking.members.tolist()]
    uniform = np.maximum(stable_uniform(picking.seed, ids, "gumbel"), _SMALLEST_UNIFORM)
    # Differences are exactly 0 where all scores are equal; the spread of the scores themselves may be a rounding error.
    scores = picking.scores - picking.scores.max()
    spread = float(scores.std()) or 1.0
    keys = scores / (options.temperature * spread) - np.log(-np.log(uniform))
    order = np.lexsort((picking.members, -keys))
    return picking.members[order[: picking.count]]


def random(signals: Signals, picking: Picking, options: Options) -> Indices:
    """A draw by a stable hash of ids and seed, whatever the scores."""
    uniform = stable_uniform(picking.seed, [signals.sample_ids[i] for i in picking.members.tolist()], "random rule")
    return picking.members[np.lexsort((picking.members, uniform))[: picking.count]]


class GraphOptions(SpaceOptions):
    """Options of rules on a neighbour graph."""

    n_neighbours: int = Field(10, ge=1, description="Neighbours of a row in the graph.")


def k_center_rule(signals: Signals, picking: Picking, options: GraphOptions) -> Indices:
    """Rows far apart from each other; where nothing is near, the highest scores first."""
    return _on_graph(signals, picking, options, k_center)


def facility_location_rule(signals: Signals, picking: Picking, options: GraphOptions) -> Indices:
    """Rows that are alike to as many others as possible."""
    return _on_graph(signals, picking, options, facility_location)


class D2Options(GraphOptions):
    """Options of D2 pruning."""

    forward: float = Field(1.0, ge=0, description="gamma_f: how little a row's difficulty spreads to its neighbours.")
    reverse: float = Field(1.0, ge=0, description="gamma_r: how little a chosen row takes from its neighbours.")


def d2_rule(signals: Signals, picking: Picking, options: D2Options) -> Indices:
    """Difficult rows in difficult neighbourhoods, one of a neighbourhood at a time.

    Scores below 0 are shifted to begin at 0; equal ones are all 1, so that the neighbourhoods alone decide.
    """

    def choose(graph: Graph, scores: Floats, count: int) -> Indices:
        values = scores - min(0.0, scores.min()) if np.ptp(scores) > 0 else np.ones_like(scores)
        return d2_pruning(graph, values, count, forward=options.forward, reverse=options.reverse)

    return _on_graph(signals, picking, options, choose)


class DedupOptions(GraphOptions):
    """Options of near-duplicate removal."""

    max_cosine: float = Field(0.95, gt=0, le=1, description="Rows with a larger cosine are near duplicates.")


def dedup_rule(signals: Signals, picking: Picking, options: DedupOptions) -> Indices:
    """The highest scores without near duplicates of a row that was taken; what is missing then is a shortfall.

    Rows without a vector are nobody's duplicates and go by their score.
    """
    known, unit, rest = _vectors_of(signals, picking, options)
    if not len(known):
        return top(signals, picking, options)
    graph, scores = knn_graph(unit, options.n_neighbours), _scores_of(picking, known)
    kept = known[without_near_duplicates(graph, unit, scores, picking.count, cosine=options.max_cosine)]
    return _best_first(picking, np.concatenate([kept, rest]))[: picking.count]


class MmdOptions(SpaceOptions):
    """Options of the discrepancy."""

    bandwidth: float = Field(0.5, gt=0, description="Width of the kernel, a distance of unit vectors.")
    max_rows: int = Field(
        4000, ge=2, description="A larger group is thinned by id to 4 rows for a place, in parts of at most so many."
    )


def mmd_rule(signals: Signals, picking: Picking, options: MmdOptions) -> Indices:
    """Rows whose mean is nearest to that of the group (greedy maximum mean discrepancy).

    All pairs are compared, so a larger group than `max_rows` is thinned, and cut into parts if many places are to be
    filled; each part represents the group, as ids are hashes.
    """
    known, unit, rest = _vectors_of(signals, picking, options)
    places = _places(known, rest, picking)
    size = min(len(known), max(options.max_rows, ROWS_PER_PLACE * places))
    n_parts = max(1, -(-size // options.max_rows))
    parts = [np.arange(start, size, n_parts) for start in range(n_parts)]
    counts = largest_remainder([len(part) for part in parts], places)
    herds = [
        part[kernel_herding(unit[part], count, bandwidth=options.bandwidth)]
        for part, count in zip(parts, counts, strict=True)
        if count
    ]
    return _with_rest(known[_in_turns(herds)], rest, picking)


def _on_graph(
    signals: Signals,
    picking: Picking,
    options: GraphOptions,
    choose: Callable[[Graph, Floats, int], Indices],
) -> Indices:
    known, unit, rest = _vectors_of(signals, picking, options)
    places = _places(known, rest, picking)
    if places:
        known = known[choose(knn_graph(unit, options.n_neighbours), _scores_of(picking, known), places)]
    return _with_rest(known[:places], rest, picking)


def _vectors_of(
    signals: Signals, picking: Picking, options: SpaceOptions
) -> tuple[Indices, NDArray[np.float32], Indices]:
    """Members with a vector, their unit vectors, and the members without one."""
    index, matrix = signals.vectors(options.space)
    places = index[picking.members]
    has = places >= 0
    unit = matrix[places[has]]
    for start in range(0, len(unit), ROWS_PER_BLOCK):
        unit[start : start + ROWS_PER_BLOCK] = normalise_rows(unit[start : start + ROWS_PER_BLOCK])
    return picking.members[has], unit, picking.members[~has]


def _places(known: Indices, rest: Indices, picking: Picking) -> int:
    """Places of the rows with a vector: their share, as no rule can compare them with those without."""
    return largest_remainder([len(known), len(rest)], min(picking.count, len(picking.members)))[0]


def _with_rest(chosen: Indices, rest: Indices, picking: Picking) -> Indices:
    """What was chosen and, between it, the best rows without a vector."""
    return _in_turns([chosen, _best_first(picking, rest)[: picking.count - len(chosen)]])


def _in_turns(lists: Sequence[Indices]) -> Indices:
    """Ordered lists merged so that every beginning holds about the same share of each."""
    rows = np.concatenate([np.empty(0, np.int64), *lists])
    place = np.concatenate([np.empty(0), *((np.arange(len(found)) + 0.5) / max(1, len(found)) for found in lists)])
    return rows[np.lexsort((rows, place))]


def _scores_of(picking: Picking, rows: Indices) -> Floats:
    return picking.scores[np.searchsorted(picking.members, rows)]


def _best_first(picking: Picking, rows: Indices) -> Indices:
    return rows[np.lexsort((rows, -_scores_of(picking, rows)))]


RULES = (
    Diversity("top", top, "The highest scores."),
    Diversity("random", random, "A seeded draw, whatever the scores."),
    Diversity(
        "k_center",
        k_center_rule,
        "Rows far apart (greedy k-centre on a neighbour graph).",
        options=GraphOptions,
    ),
    Diversity(
        "facility_location",
        facility_location_rule,
        "Rows that cover all others (lazy greedy facility location on a neighbour graph).",
        options=GraphOptions,
    ),
    Diversity(
        "d2",
        d2_rule,
        "D2 pruning: scores spread to neighbours, and chosen rows take from them.",
        options=D2Options,
    ),
    Diversity(
        "dedup",
        dedup_rule,
        "The highest scores without near duplicates (SemDeDup).",
        options=DedupOptions,
    ),
    Diversity(
        "mmd",
        mmd_rule,
        "Rows that represent their group (greedy maximum mean discrepancy).",
        options=MmdOptions,
    ),
    Diversity("gumbel", gumbel, "A seeded draw in which higher scores are likelier.", options=GumbelOptions),
)
