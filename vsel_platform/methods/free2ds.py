"""Free2DS (github.com/jematy/Free2DS): rows that two models look at differently, and whose text is unusual.

No labels and no training: the image score is the IoU of two models' relative attention (low = they disagree =
valuable), the text score is the distance of the questions to their cluster's centroid (high = unusual = valuable).
`signals.attention_maps` makes the first, `text_clusters` the second, `free2ds_released` is the released filter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from vsel_platform.errors import SelectionError
from vsel_platform.selection.stable_hash import stable_uniform

Floats = NDArray[np.float64]

NEUTRAL = 0.5
ROBUST_QUANTILES = (0.01, 0.99)
# Half the smallest step of `stable_uniform`, whose 0 has no Gumbel noise.
_SMALLEST_UNIFORM = 2.0**-54


class Free2dsOptions(BaseModel):
    """Options of Free2DS. The released draw is policy gumbel at temperature 1, which is close to a random one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    alpha: float = Field(0.5, ge=0, le=1, description="Weight of the text score; the image score has the rest.")
    scaling: Literal["robust", "minmax"] = Field(
        "robust", description="Ends of a score's scale: its 1 % and 99 % quantiles, or its extremes."
    )
    policy: Literal["top_k", "gumbel"] = Field(
        "top_k", description="top_k: the best rows; gumbel: a draw in which better rows are likelier."
    )
    temperature: float = Field(
        0.05, gt=0, description="Of policy gumbel, in units of the joint score; the larger, the more random."
    )


@dataclass(frozen=True, slots=True)
class Free2dsScores:
    """Columns float64 [n], NaN = NULL, and how many rows lack what.

    `image` and `text` are scaled to [0, 1] with 1 = valuable; `joint` is their weighted sum, NaN for a row that
    cannot rank. `missing_image`, `missing_text` and `unranked` count the rows without the one, the other, and `joint`.
    """

    image: Floats
    text: Floats
    joint: Floats
    missing_image: int
    missing_text: int
    unranked: int


@dataclass(frozen=True, slots=True)
class SelectionPressure:
    """How far a selection leans to high scores: mean score of the chosen, of the pool and of the true top-k, and the
    share of the chosen that is in the true top-k. None where there is no score."""

    mean_chosen: float | None
    mean_pool: float | None
    mean_top: float | None
    top_overlap: float | None


def joint_scores(iou: Floats, text_distance: Floats, options: Free2dsOptions) -> Free2dsScores:
    """Joint scores of `iou` [n] (low is valuable) and `text_distance` [n] (high is valuable); NaN = missing.

    Each column is scaled by `scale_to_unit` over the rows that have it, the IoU inverted. A missing value stays NaN
    in its column; in the joint score it stands at the column's median, so that it is neither good nor bad. A row
    without any part that has weight gets no joint score. Raises SelectionError for columns of different lengths.
    """
    if iou.shape != text_distance.shape:
        raise SelectionError(f"{len(iou)} image and {len(text_distance)} text scores; align them by row")
    image = 1 - scale_to_unit(iou, options.scaling)
    text = scale_to_unit(text_distance, options.scaling)
    weighted = [(1 - options.alpha, image), (options.alpha, text)]
    joint, ranked = np.zeros(len(image)), np.zeros(len(image), np.bool_)
    for weight, column in weighted:
        present = np.isfinite(column)
        middle = float(np.median(column[present])) if present.any() else NEUTRAL
        joint += weight * np.where(present, column, middle)
        ranked |= present & (weight > 0)
    joint[~ranked] = np.nan
    missing = [int(np.isnan(column).sum()) for column in (image, text, joint)]
    return Free2dsScores(image, text, joint, *missing)


def scale_to_unit(values: Floats, scaling: Literal["robust", "minmax"]) -> Floats:
    """Values [n] on a scale from 0 to 1, float64; what is not finite becomes NaN.

    The ends are the 1 % and 99 % quantiles of the finite values (`robust`; what lies beyond is cut), or their
    extremes. Where the ends coincide, values at that point are 0.5, lower ones 0 and higher ones 1, so that a
    constant column is neutral.
    """
    scaled = np.full(len(values), np.nan)
    present = np.isfinite(values)
    found = np.asarray(values, np.float64)[present]
    if not len(found):
        return scaled
    low, high = np.quantile(found, ROBUST_QUANTILES if scaling == "robust" else (0.0, 1.0))
    if high > low:
        scaled[present] = (np.clip(found, low, high) - low) / (high - low)
    else:
        scaled[present] = NEUTRAL + NEUTRAL * np.sign(found - low)
    return scaled


def select_order(scores: Floats, ids: Sequence[str], options: Free2dsOptions, *, seed: int) -> NDArray[np.int64]:
    """Positions int64 [m] of the rows with a score, best first: the first k are the selection of a budget of k.

    `top_k`: by score, ties by id. `gumbel`: by score / temperature + Gumbel noise that belongs to (seed, id)
    (Gumbel-top-k, Kool et al., arXiv 1903.06059: a draw without replacement by softmax(score / temperature)). Both
    do not depend on the order of the rows, and a larger budget keeps the rows of a smaller one. Raises
    SelectionError for ids that are repeated or not as many as scores.
    """
    if len(ids) != len(scores) or len(set(ids)) != len(ids):
        raise SelectionError(f"{len(scores)} scores and {len(set(ids))} distinct ids of {len(ids)}; align them by row")
    by_id = np.array(sorted(range(len(ids)), key=ids.__getitem__), np.int64)
    by_id = by_id[np.isfinite(scores[by_id])]
    keys = scores[by_id]
    if options.policy == "gumbel":
        keys = keys / options.temperature + _gumbel(seed, [ids[i] for i in by_id])
    return by_id[np.argsort(-keys, kind="stable")]


def _gumbel(seed: int, ids: Sequence[str]) -> Floats:
    uniform = np.maximum(stable_uniform(seed, ids), _SMALLEST_UNIFORM)
    return np.asarray(-np.log(-np.log(uniform)))


def selection_pressure(scores: Floats, chosen: NDArray[np.int64]) -> SelectionPressure:
    """Selection pressure of the positions `chosen` [k] in a pool with `scores` [n]; NaN scores are left out.

    A row that ties with the last of the true top-k counts as one of them as long as there is room.
    """
    pool = scores[np.isfinite(scores)]
    found = scores[chosen]
    found = found[np.isfinite(found)]
    if not len(found):
        return SelectionPressure(None, float(pool.mean()) if len(pool) else None, None, None)
    top = np.sort(pool)[len(pool) - len(found) :]
    above = int((top > top[0]).sum())
    shared = int((found > top[0]).sum()) + min(int((found == top[0]).sum()), len(top) - above)
    return SelectionPressure(float(found.mean()), float(pool.mean()), float(top.mean()), shared / len(top))
