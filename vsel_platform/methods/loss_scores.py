"""Scores from answer losses under the base model: perplexity, EL2N, and what the image adds."""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vsel_platform.methods.api import Floats, Options, Score, ScoreTable, Signals
from vsel_platform.tables import Column

# Batch composition leaves noise of about 1e-7 in float32 losses; it must not decide ranks.
DECIMALS = 6


class PerplexityOptions(Options):
    """Which end of the losses is valuable."""

    prefer: str = Field("high", pattern="^(high|low|middle)$", description="high, low or middle losses first.")


def perplexity(signals: Signals, options: PerplexityOptions) -> ScoreTable:
    """Perplexity exp(mean answer loss); Marion et al., arXiv 2309.04564, rank by it.

    `prefer: middle` ranks by the distance of a loss's quantile from the middle, the best choice of that paper.
    """
    loss = signals.losses("full").mean.round(DECIMALS)
    return ScoreTable(preferred(loss, options.prefer), {"perplexity": np.exp(loss)})


def el2n(signals: Signals, options: Options) -> ScoreTable:
    """Mean over the answer tokens of |p - onehot|_2 (Paul et al., arXiv 2107.07075, eq. 2, per token)."""
    return ScoreTable(signals.losses("full").el2n.round(DECIMALS))


class VisnecOptions(Options):
    """Options of visual necessity."""

    max_gain: float | None = Field(
        None, description="Rows whose gain is larger are left out (an outlier may be a broken row); none by default."
    )


def visnec(signals: Signals, options: VisnecOptions) -> ScoreTable:
    """Visual necessity: loss(no image) - loss(full), mean per token [nat] (VisNec, arXiv 2603.01195).

    Below 0 the image misleads, near 0 it is redundant, above it is needed.
    """
    full, blind = signals.losses("full").mean, signals.losses("no_image").mean
    gain = (blind - full).round(DECIMALS)
    too_large = gain > options.max_gain if options.max_gain is not None else np.zeros(len(gain), np.bool_)
    columns = {"loss_full": full, "loss_no_image": blind, "verdict": _verdicts(gain)}
    return ScoreTable(np.where(too_large, np.nan, gain), columns)


REDUNDANT_NATS = 0.01


def _verdicts(gain: Floats) -> NDArray[np.object_]:
    words = np.full(len(gain), "redundant", object)
    words[gain > REDUNDANT_NATS] = "necessary"
    words[gain < -REDUNDANT_NATS] = "misaligned"
    words[np.isnan(gain)] = None
    return words


def vig(signals: Signals, options: Options) -> ScoreTable:
    """Visual information gain: log of the ratio of perplexities without and with the image, as a share of the loss
    without it (VIG, arXiv 2602.17186): comparable between long and short answers."""
    full, blind = signals.losses("full").mean, signals.losses("no_image").mean
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(blind > 0, (blind - full) / blind, np.nan)
    return ScoreTable(share.round(DECIMALS), {"gain": (blind - full).round(DECIMALS)})


def preferred(values: Floats, end: str) -> Floats:
    """Scores that put `high`, `low` or `middle` values first; the middle is the median's quantile."""
    if end == "middle":
        return 0.5 - np.abs(quantiles(values) - 0.5)
    return values if end == "high" else -values


def quantiles(values: Floats) -> Floats:
    """Quantile of every value among the known ones, in (0, 1), ties equal; NaN stays NaN."""
    known = np.isfinite(values)
    ordered = np.sort(values[known])
    low, high = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    return np.where(known, (low + high) / 2 / max(1, len(ordered)), np.nan)


_LOSS = "Mean answer loss with the image."
PERPLEXITY = Score(
    "perplexity",
    perplexity,
    "Perplexity of the answers under the base model.",
    needs=("base_losses",),
    options=PerplexityOptions,
    columns=(Column("perplexity", "float64", "exp of the mean answer loss.", "1", True),),
)
EL2N = Score("el2n", el2n, "Distance of the predictions from the answers.", needs=("base_losses",))
VISNEC = Score(
    "visnec",
    visnec,
    "Visual necessity: how much the image lowers the answer loss.",
    needs=("base_losses",),
    options=VisnecOptions,
    columns=(
        Column("loss_full", "float64", _LOSS, "nat/token", True),
        Column("loss_no_image", "float64", "Mean answer loss without the image.", "nat/token", True),
        Column("verdict", "string", "necessary, redundant or misaligned.", "", True),
    ),
    text="stratum",
)
VIG = Score(
    "vig",
    vig,
    "Visual information gain, as a share of the loss without the image.",
    needs=("base_losses",),
    columns=(Column("gain", "float64", "Loss without minus loss with the image.", "nat/token", True),),
    text="stratum",
)
