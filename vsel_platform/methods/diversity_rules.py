"""Diversity rules: which rows of a group are taken."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vsel_platform.methods.api import Diversity, Floats, Indices, Options, Picking, Signals
from vsel_platform.methods.geometry_scores import SpaceOptions
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


def top(signals: Signals, picking: Picking, options: Options) -> Indices:
    """The highest scores; ties by id."""
    order = np.lexsort((picking.members, -picking.scores))
    return picking.members[order[: picking.count]]


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
    uniform = np.maximum(stable_uniform(picking.seed, ids), _SMALLEST_UNIFORM)
    spread = float(picking.scores.std()) or 1.0
    keys = picking.scores / (options.temperature * spread) - np.log(-np.log(uniform))
    order = np.lexsort((picking.members, -keys))
    return picking.members[order[: picking.count]]


def random(signals: Signals, picking: Picking, options: Options) -> Indices:
    """A draw by a stable hash of ids and seed, whatever the scores."""
    uniform = stable_uniform(picking.seed, [signals.sample_ids[i] for i in picking.members.tolist()])
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
    """Difficult rows in difficult neighbourhoods, one of a neighbourhood at a time."""

    def choose(graph: Graph, scores: Floats, count: int) -> Indices:
        return d2_pruning(graph, scores - scores.min(), count, forward=options.forward, reverse=options.reverse)

    return _on_graph(signals, picking, options, choose)


class DedupOptions(GraphOptions):
    """Options of near-duplicate removal."""

    max_cosine: float = Field(0.95, gt=0, le=1, description="Rows with a larger cosine are near duplicates.")


def dedup_rule(signals: Signals, picking: Picking, options: DedupOptions) -> Indices:
    """The highest scores without near duplicates of a row that was taken; what is missing then is a shortfall."""

    def choose(graph: Graph, scores: Floats, count: int) -> Indices:
        return without_near_duplicates(graph, scores, count, cosine=options.max_cosine)

    return _on_graph(signals, picking, options, choose, fill=False)


class MmdOptions(SpaceOptions):
    """Options of the discrepancy."""

    bandwidth: float = Field(0.5, gt=0, description="Width of the kernel, a distance of unit vectors.")
    max_rows: int = Field(4000, ge=2, description="A larger group is thinned to so many rows by id before.")


def mmd_rule(signals: Signals, picking: Picking, options: MmdOptions) -> Indices:
    """Rows whose mean is nearest to that of the group (greedy maximum mean discrepancy)."""
    known, unit, rest = _vectors_of(signals, picking, options)
    size = max(options.max_rows, picking.count)
    chosen = kernel_herding(unit[:size], min(picking.count, len(known)), bandwidth=options.bandwidth)
    return _filled(known[chosen], rest, picking)


def _on_graph(
    signals: Signals,
    picking: Picking,
    options: GraphOptions,
    choose: Callable[[Graph, Floats, int], Indices],
    *,
    fill: bool = True,
) -> Indices:
    known, unit, rest = _vectors_of(signals, picking, options)
    if not len(known):
        return _filled(known, rest, picking)
    scores = picking.scores[np.searchsorted(picking.members, known)]
    chosen = choose(knn_graph(unit, options.n_neighbours), scores, picking.count)
    return _filled(known[chosen], rest, picking) if fill else known[chosen]


def _vectors_of(
    signals: Signals, picking: Picking, options: SpaceOptions
) -> tuple[Indices, NDArray[np.float32], Indices]:
    """Members with a vector, their unit vectors, and the members without one."""
    index, matrix = signals.vectors(options.space)
    places = index[picking.members]
    has = places >= 0
    return picking.members[has], normalise_rows(matrix[places[has]]), picking.members[~has]


def _filled(chosen: Indices, rest: Indices, picking: Picking) -> Indices:
    """What was chosen, and then rows without a vector by score, which no rule can place among the others."""
    scores = picking.scores[np.searchsorted(picking.members, rest)]
    return np.concatenate([chosen, rest[np.lexsort((rest, -scores))]])[: picking.count]


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
