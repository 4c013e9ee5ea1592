"""Score from one encoder of images and texts: how well a row's questions fit its image."""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vsel_platform.config import Project
from vsel_platform.methods.api import Floats, Indices, Options, Score, ScoreTable, Signals
from vsel_platform.methods.loss_scores import DECIMALS, preferred
from vsel_platform.tables import Column

# Pairs of vectors that are multiplied at a time.
BLOCK_PAIRS = 16_384


class ClipScoreOptions(Options):
    """Which end of the agreement is valuable."""

    prefer: str = Field("high", pattern="^(high|low|middle)$", description="high, low or middle agreement first.")


def clip_score(signals: Signals, options: ClipScoreOptions) -> ScoreTable:
    """Mean over the row's user turns of max(0, cosine(image, question)): CLIPScore, Hessel et al., arXiv 2104.08718,
    eq. 1 without its factor w = 2.5, which changes no rank.

    Turns without a vector are left out; a row without an image's or any question's vector has no score.
    """
    images, image_vectors = signals.vectors("image_embeddings")
    rows, questions, question_vectors = signals.question_vectors()
    cosine = _cosines(images[rows], image_vectors, questions, question_vectors)
    known = np.isfinite(cosine)
    rows, cosine = rows[known], cosine[known]
    count = np.bincount(rows, minlength=len(images)).astype(np.float64)
    clipped, plain = (_mean(values, rows, count) for values in (np.maximum(cosine, 0), cosine))
    return ScoreTable(preferred(clipped.round(DECIMALS), options.prefer), {"cosine": plain})


def _mean(values: Floats, rows: Indices, count: Floats) -> Floats:
    mean = np.full(len(count), np.nan)
    total = np.bincount(rows, weights=values, minlength=len(count))
    np.divide(total, count, out=mean, where=count > 0)
    return mean


def _cosines(left: Indices, lefts: NDArray[np.float32], right: Indices, rights: NDArray[np.float32]) -> Floats:
    """Cosine of every pair of places float64 [n]; NaN where a place is -1 or a vector has no length."""
    found = np.full(len(left), np.nan)
    both = np.flatnonzero((left >= 0) & (right >= 0))
    if not len(both):
        return found
    lengths = _lengths(lefts)[left[both]] * _lengths(rights)[right[both]]
    for start in range(0, len(both), BLOCK_PAIRS):
        part = both[start : start + BLOCK_PAIRS]
        found[part] = np.einsum("ij,ij->i", lefts[left[part]], rights[right[part]], dtype=np.float64)
    found[both] = np.divide(found[both], lengths, out=np.full(len(both), np.nan), where=lengths > 0)
    return found


def _lengths(vectors: NDArray[np.float32]) -> Floats:
    squares: Floats = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    return np.sqrt(squares)


def joint_encoder(project: Project) -> str | None:
    """What the project file lacks for image and question vectors of one space; None if nothing."""
    image, text = project.image_encoder, project.text_encoder
    if image.feature != "joint" or text.feature != "joint":
        return "`feature: joint` in image_encoder and in text_encoder, with a CLIP or SigLIP checkpoint as `model`,"
    if (image.model, image.revision) != (text.model, text.revision):
        return (
            f"one checkpoint, the same model and revision in image_encoder ({image.model}, {image.revision}) and in "
            f"text_encoder ({text.model}, {text.revision}),"
        )
    return None


CLIP_SCORE = Score(
    "clip_score",
    clip_score,
    "How well the questions fit the image, in the joint space of an encoder of both.",
    needs=("image_embeddings", "text_embeddings"),
    options=ClipScoreOptions,
    columns=(Column("cosine", "float64", "Mean cosine between the image and the row's questions.", "cosine", True),),
    text="stratum",
    requires=joint_encoder,
)
