"""ScalSelect (arXiv 2602.11636): rows whose attended vision lies in the leading directions of the data set."""

import numpy as np
from pydantic import Field

from vsel_platform.methods.api import Need, Options, Score, ScoreTable, Signals
from vsel_platform.methods.scalselect_released import released_scores
from vsel_platform.selection.leverage import leverage_basis, leverage_scores

SIGNAL: Need = "vision_representations"
# Scores carry about ten digits; what is behind them must not decide ranks.
DECIMALS = 10


class ScalselectOptions(Options):
    """Options of the leverage scores; the paper only centres."""

    threshold: float = Field(0.9, gt=0, le=1, description="Share of the energy that the leading directions hold.")
    center: bool = Field(True, description="Subtract the mean; without it the mean is the leading direction.")
    standardize: bool = Field(False, description="Divide columns by their standard deviation.")


def leverage(signals: Signals, options: ScalselectOptions) -> ScoreTable:
    """Leverage of a row in the leading left singular space, sum over j < k of U[i, j]^2 (section 3.3)."""
    moments = signals.moments(SIGNAL)
    basis = leverage_basis(moments, threshold=options.threshold, center=options.center, standardize=options.standardize)
    scores = np.full(len(signals.sample_ids), np.nan)
    for rows, block in signals.blocks(SIGNAL):
        scores[rows] = leverage_scores([block], basis)
    note = f"{basis.k} directions hold {basis.explained_energy:.2%} of the energy of {moments.n:,} rows"
    return ScoreTable(scores.round(DECIMALS), notes=[note])


class ReleasedLeverageOptions(ScalselectOptions):
    """Options of the released scores."""

    l2: bool = Field(False, description="Divide rows by their length.")


def leverage_released(signals: Signals, options: ReleasedLeverageOptions) -> ScoreTable:
    """The same scores by one full SVD in float32, as released: not rounded, so equal rows may rank by rounding."""
    places, matrix = signals.vectors(SIGNAL)
    rows = np.flatnonzero(places >= 0)
    scores = np.full(len(places), np.nan)
    if not len(rows):
        return ScoreTable(scores)
    found, k = released_scores(
        matrix[places[rows]],
        [str(row) for row in rows.tolist()],
        threshold=options.threshold,
        center=options.center,
        standardize=options.standardize,
        l2=options.l2,
    )
    for row, score in found:
        scores[row] = score
    return ScoreTable(scores, notes=[f"{k} directions of {len(rows):,} rows"])


RELEASED_SCORE = Score(
    "scalselect_released",
    leverage_released,
    "Leverage by a full SVD in float32, as released.",
    needs=(SIGNAL,),
    options=ReleasedLeverageOptions,
    text="stratum",
)
SCORE = Score(
    "scalselect",
    leverage,
    "Leverage of what the instruction looks at in the image, in the leading directions of the data set.",
    needs=(SIGNAL, "representation_moments"),
    options=ScalselectOptions,
    text="stratum",
)
