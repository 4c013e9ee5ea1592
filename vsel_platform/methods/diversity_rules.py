"""Diversity rules: which rows of a group are taken."""

import numpy as np
from pydantic import Field

from vsel_platform.methods.api import Diversity, Indices, Options, Picking, Signals
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


RULES = (
    Diversity("top", top, "The highest scores."),
    Diversity("gumbel", gumbel, "A seeded draw in which higher scores are likelier.", options=GumbelOptions),
)
