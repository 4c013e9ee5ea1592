"""Free2DS as scores: from two models' attention maps and the embeddings of the questions."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from vsel_platform.config import Project
from vsel_platform.errors import SelectionError
from vsel_platform.methods.api import (
    AttentionTops,
    Diversity,
    Floats,
    Indices,
    Options,
    Picking,
    Score,
    ScoreTable,
    Signals,
)
from vsel_platform.methods.free2ds import Free2dsOptions, joint_scores
from vsel_platform.methods.free2ds_released import (
    assign_to_centroids,
    released_centroids,
    released_draw,
    released_joint_scores,
)
from vsel_platform.methods.text_clusters import cluster_texts, row_means
from vsel_platform.tables import Column

# Losses of digits in float32 attention and embeddings must not decide ranks.
DECIMALS = 6
TEXTS_PER_CLUSTER = 20
ROWS_PER_BLOCK = 4096
RELEASED_CLUSTERS = 1000
# The default of faiss.Kmeans, max_points_per_centroid.
RELEASED_ROWS_PER_CLUSTER = 256
SEED = 42


class Free2dsScoreOptions(Options):
    """Options of the corrected score."""

    alpha: float = Field(0.5, ge=0, le=1, description="Weight of the text score; the image score has the rest.")
    scaling: Literal["robust", "minmax"] = Field(
        "robust", description="Ends of a score's scale: its 1 % and 99 % quantiles, or its extremes."
    )
    text_clusters: int = Field(
        RELEASED_CLUSTERS, ge=1, description="Clusters of questions; at most one for each 20 distinct questions."
    )


def free2ds(signals: Signals, options: Free2dsScoreOptions) -> ScoreTable:
    """Joint score of disagreement and unusual text; what is missing is NULL and stands at the median, never best."""
    iou = ious(*signals.attention_tops())
    row_of_turn, vector_of_turn, matrix = signals.question_vectors()
    distances = np.full(len(row_of_turn), np.nan)
    if len(matrix):
        clusters = cluster_texts(matrix, min(options.text_clusters, max(1, len(matrix) // TEXTS_PER_CLUSTER)), SEED)
        known = vector_of_turn >= 0
        distances[known] = clusters.distances[vector_of_turn[known]]
    text = row_means(distances, row_of_turn, len(iou))
    found = joint_scores(
        iou.round(DECIMALS), text.round(DECIMALS), Free2dsOptions(alpha=options.alpha, scaling=options.scaling)
    )
    notes = [
        f"{found.missing_image:,} rows have no attention map and {found.missing_text:,} no text score; "
        f"{found.unranked:,} have neither and cannot be selected"
    ]
    columns = {"iou": iou, "text_distance": text, "image_score": found.image, "text_score": found.text}
    return ScoreTable(found.joint.round(DECIMALS), columns, notes)


class ReleasedScoreOptions(Options):
    """Options of the released score."""

    alpha: float = Field(0.5, ge=0, le=1, description="Weight of the text score; the image score has the rest.")


def free2ds_released(signals: Signals, options: ReleasedScoreOptions) -> ScoreTable:
    """The joint score as released: extremes set the scales, and what is missing counts as 0, inverted the best."""
    iou = ious(*signals.attention_tops())
    row_of_turn, vector_of_turn, matrix = signals.question_vectors()
    text = np.full(len(iou), np.nan)
    if len(matrix):
        known = vector_of_turn >= 0
        turns = vector_of_turn[known]
        n_clusters = min(RELEASED_CLUSTERS, len(turns))
        centroids = released_centroids(matrix[turns[trained_on(len(turns), n_clusters)]], n_clusters)
        blocks = (turns[start : start + ROWS_PER_BLOCK] for start in range(0, len(turns), ROWS_PER_BLOCK))
        distances = np.concatenate([assign_to_centroids(matrix[block], centroids)[1] for block in blocks])
        with np.errstate(invalid="ignore"):
            similarity = 1.0 - distances / distances.max()
        text = row_means(similarity.astype(np.float64), row_of_turn[known], len(iou))
    found = released_joint_scores(iou, text, options.alpha)
    columns = {"iou": iou, "text_distance": 1 - text, "image_score": found.iou, "text_score": found.text}
    return ScoreTable(found.combined, columns)


def trained_on(n_turns: int, n_clusters: int) -> Indices:
    """Turns that faiss.Kmeans draws to train on with the released settings, int64: each turn is a point, so a question
    that is asked often counts often, and the vectors of all turns need not be held at once."""
    import faiss

    size = n_clusters * RELEASED_ROWS_PER_CLUSTER
    if n_turns <= size:
        return np.arange(n_turns)
    library: Any = faiss
    drawn = np.empty(n_turns, np.int32)
    library.rand_perm(library.swig_ptr(drawn), n_turns, SEED)
    return drawn[:size].astype(np.int64)


def ious(first: AttentionTops, second: AttentionTops) -> Floats:
    """Intersection over union of two models' top tokens, float64 [n]; NaN where one has no map.

    Raises SelectionError for maps of different lengths: their tokens do not show the same places.
    """
    both = (first.n_tokens > 0) & (second.n_tokens > 0)
    if (first.n_tokens[both] != second.n_tokens[both]).any():
        i = int(np.flatnonzero(both & (first.n_tokens != second.n_tokens))[0])
        raise SelectionError(
            f"the models' maps have {first.n_tokens[i]} and {second.n_tokens[i]} tokens and cannot be compared; "
            "give both a common grid (signals.attention_grid in the project file)"
        )
    found = np.full(len(both), np.nan)
    rows = np.flatnonzero(both)
    for start in range(0, len(rows), ROWS_PER_BLOCK):
        block = rows[start : start + ROWS_PER_BLOCK]
        (row_a, a), (row_b, b) = (_flat([looks.tops[i] for i in block.tolist()]) for looks in (first, second))
        marked = np.zeros((len(block), int(first.n_tokens[block].max())), np.bool_)
        marked[row_a, a] = True
        counts = [np.bincount(row, minlength=len(block)) for row in (row_a, row_b, row_b[marked[row_b, b]])]
        found[block] = counts[2] / (counts[0] + counts[1] - counts[2])
    return found


def _flat(lists: Sequence[Indices]) -> tuple[Indices, Indices]:
    """Number of the list of every value, and the values."""
    return np.repeat(np.arange(len(lists)), [len(values) for values in lists]), np.concatenate(lists)


class DrawOptions(Options):
    """Options of the released draw."""

    temperature: float = Field(1.0, gt=0, description="softmax(score / temperature); at 1 nearly a random draw.")


def released_softmax_draw(signals: Signals, picking: Picking, options: DrawOptions) -> Indices:
    """The released draw with NumPy's legacy generator; it depends on the order of the rows, here by id."""
    drawn = released_draw(picking.scores, picking.count, temperature=options.temperature, seed=picking.seed)
    return picking.members[drawn]


_COLUMNS = (
    Column("iou", "float64", "Overlap of the two models' top tokens; NULL without both maps.", "1", True),
    Column("text_distance", "float64", "Mean scaled distance of the questions to their centroids.", "1", True),
    Column("image_score", "float64", "Scaled disagreement of the models.", "1", True),
    Column("text_score", "float64", "Scaled unusualness of the questions.", "1", True),
)


def second_model(project: Project) -> str | None:
    """What the project file lacks for maps of two models; None if nothing."""
    return None if project.second_vlm is not None else "the other model to compare with, as `second_vlm`,"


SCORE = Score(
    "free2ds",
    free2ds,
    "Two models look at different places, and the questions are unusual.",
    needs=("attention_maps", "text_embeddings"),
    options=Free2dsScoreOptions,
    columns=_COLUMNS,
    requires=second_model,
)
RELEASED_SCORE = Score(
    "free2ds_released",
    free2ds_released,
    "The joint score as released: what is missing counts as best.",
    needs=("attention_maps", "text_embeddings"),
    options=ReleasedScoreOptions,
    columns=_COLUMNS,
    requires=second_model,
)
RELEASED_DRAW = Diversity(
    "softmax_draw", released_softmax_draw, "Free2DS's released draw (numpy.random.choice).", options=DrawOptions
)
