"""Scores from vectors: how typical of its cluster a row is, how redundant in the data set, and none at all."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from vsel_platform.methods.api import Clustering, Floats, Options, Score, ScoreTable, Signals, Space
from vsel_platform.methods.loss_scores import DECIMALS
from vsel_platform.tables import Column

# Vectors are float32: a smaller share of the mean's length is nothing but rounding.
ROUNDING = 1e-6


class SpaceOptions(Options):
    """Which vectors a part looks at."""

    space: Space = Field(
        "image_embeddings", description="Vectors: image_embeddings, vision_representations or hidden_states."
    )


class ClusterOptions(SpaceOptions):
    """Which clusters a part looks at; parts with equal options share them."""

    n_clusters: int = Field(0, ge=0, description="Clusters; 0 takes the square root of the number of rows.")
    cluster_seed: int = Field(12345, description="Seed of the clusters.")


def clustering_of(options: ClusterOptions) -> Sequence[Clustering]:
    """The one clustering that the options name."""
    return (Clustering(options.space, options.n_clusters, options.cluster_seed),)


def uniform(signals: Signals, options: Options) -> ScoreTable:
    """No score: all rows are worth the same, and ties go by id, which is as good as a draw."""
    return ScoreTable(np.zeros(len(signals.sample_ids)))


class PrototypicalityOptions(ClusterOptions):
    """Which end is valuable."""

    prefer: Literal["typical", "atypical"] = Field(
        "atypical", description="atypical: far from the centroid (much data); typical: near it (little data)."
    )


def prototypicality(signals: Signals, options: PrototypicalityOptions) -> ScoreTable:
    """Cosine to the centroid of the row's cluster (self-supervised prototypes, Sorscher et al., arXiv 2206.14486)."""
    found = signals.clusters(clustering_of(options)[0])
    score = found.cosine if options.prefer == "typical" else -found.cosine
    labels = found.labels.astype(object)
    labels[found.labels < 0] = None
    return ScoreTable(score, {"cosine": found.cosine, "cluster": labels})


class PrismOptions(SpaceOptions):
    """Options of the redundancy."""

    space: Space = Field(
        "vision_representations", description="Vectors: vision_representations, hidden_states or image_embeddings."
    )
    power: Literal[1, 2] = Field(2, description="Sum of the correlations (1), or of their squares (2).")


def prism(signals: Signals, options: PrismOptions) -> ScoreTable:
    """Minus the mean correlation with all rows, after the data set's mean was taken out (PRISM, arXiv 2502.12119).

    With unit rows z the sum of a row's correlations is z . sum(z), that of their squares z^T G z with the d x d Gram
    matrix G, so that no n x n matrix is made. The row's correlation with itself is left out. A row that is the mean
    has no correlation with any, and no score.
    """
    mean, count = _mean(signals, options.space)
    if count == 0:
        nothing = np.full(len(signals.sample_ids), np.nan)
        return ScoreTable(nothing, {"redundancy": nothing})
    total = np.zeros_like(mean)
    gram = np.zeros((len(mean), len(mean)))
    count = 0
    for _, block in signals.blocks(options.space):
        unit, has = _unit(block, mean)
        count += int(has.sum())
        total += unit.sum(axis=0)
        if options.power == 2:
            gram += unit.T @ unit
    redundancy = np.full(len(signals.sample_ids), np.nan)
    for rows, block in signals.blocks(options.space):
        unit, has = _unit(block, mean)
        sums = unit @ total if options.power == 1 else np.einsum("ij,ij->i", unit @ gram, unit)
        redundancy[rows] = np.where(has, (sums - 1.0) / max(1, count - 1), np.nan)
    return ScoreTable(-redundancy.round(DECIMALS + 3), {"redundancy": redundancy})


def _mean(signals: Signals, space: Space) -> tuple[Floats, int]:
    total, count = np.zeros(0), 0
    for rows, block in signals.blocks(space):
        total = total + block.sum(axis=0, dtype=np.float64) if count else block.sum(axis=0, dtype=np.float64)
        count += len(rows)
    return total / max(1, count), count


def _unit(block: np.ndarray, mean: Floats) -> tuple[Floats, np.ndarray]:
    """Rows without the mean divided by their length, and whether they have one that is more than rounding."""
    unit = block.astype(np.float64)
    unit -= mean
    norms = np.linalg.norm(unit, axis=1)
    has = norms > ROUNDING * np.linalg.norm(mean)
    unit *= np.divide(1.0, norms, out=np.zeros_like(norms), where=has)[:, None]
    return unit, has


def magic(signals: Signals, options: Options) -> ScoreTable:
    """Visual gain times sharpness of the model's attention (after MAGIC, arXiv 2605.26004: multimodal gain x bridging
    relevance). A negative gain is not turned around by it."""
    gain = signals.losses("no_image").mean - signals.losses("full").mean
    sharpness = signals.attention_tops()[0].sharpness
    return ScoreTable((np.maximum(gain, 0) * sharpness).round(DECIMALS), {"gain": gain, "sharpness": sharpness})


_CLUSTER = Column("cluster", "int32", "Cluster of the row.", "", True)
UNIFORM = Score("uniform", uniform, "No score: rows are worth the same, and ties go by id.")
PROTOTYPICALITY = Score(
    "prototypicality",
    prototypicality,
    "How near the row's image is to the centroid of its cluster, or how far from it.",
    clusterings=clustering_of,
    options=PrototypicalityOptions,
    columns=(Column("cosine", "float64", "Cosine to the centroid.", "cosine", True), _CLUSTER),
    text="stratum",
    version="2",
)
PRISM = Score(
    "prism",
    prism,
    "How little the row is correlated with all others.",
    options=PrismOptions,
    columns=(Column("redundancy", "float64", "Mean correlation with the other rows (squared at power 2).", "1", True),),
    text="stratum",
    version="2",
)
MAGIC = Score(
    "magic",
    magic,
    "How much the image lowers the loss, times how sharply the model looks.",
    needs=("base_losses", "attention_maps"),
    columns=(
        Column("gain", "float64", "Loss without minus loss with the image.", "nat/token", True),
        Column("sharpness", "float64", "Sharpness of the attention.", "1", True),
    ),
    text="stratum",
)
