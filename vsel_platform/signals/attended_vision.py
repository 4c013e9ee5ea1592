"""Mean of the vision tokens that an instruction attends to: ScalSelect's representation of a row.

ScalSelect (arXiv 2602.11636) takes the smallest set of vision tokens that holds 90 % of the attention that the
instruction's tokens pay to vision tokens in the first decoder layer, and averages their first-layer hidden states.
"""

import numpy as np
from numpy.typing import NDArray

from vsel_platform.errors import ModelError


def attended_positions(attention_mass: NDArray[np.float32], threshold: float) -> NDArray[np.int64]:
    """Positions of the vision tokens that hold the share `threshold` of the mass, largest first, int64 [m].

    `attention_mass` float [n_vision]: attention that each vision token gets, averaged over instruction tokens and
    heads, in any unit. m is the smallest number of tokens whose sum, in float64, reaches the share; of equal masses
    the earlier position comes first. If no token gets any attention, none can be preferred: all positions, in order.
    Raises ModelError for no tokens, a mass that is negative or not finite, or a threshold outside (0, 1].
    """
    mass = np.asarray(attention_mass, np.float64)
    if mass.ndim != 1 or not len(mass) or not 0 < threshold <= 1:
        raise ModelError(f"attended vision: {mass.shape} masses, threshold {threshold}; needs some and one in (0, 1]")
    if not (np.isfinite(mass).all() and (mass >= 0).all()):
        raise ModelError("attended vision: an attention mass is negative or not finite; leave the row out")
    order = np.argsort(-mass, kind="stable")
    cumulative = np.cumsum(mass[order])
    if cumulative[-1] == 0:
        return order.astype(np.int64)
    count = int(np.searchsorted(cumulative, threshold * cumulative[-1])) + 1
    return order[:count].astype(np.int64)


def attended_mean(
    hidden: NDArray[np.floating], attention_mass: NDArray[np.float32], threshold: float
) -> tuple[NDArray[np.float32], int]:
    """Mean hidden state of the attended vision tokens, float32 [d], and their number.

    `hidden` float [n_vision, d]: states of the vision tokens after the first decoder layer; they are summed in
    float64. Raises ModelError as `attended_positions`, or if there is not one mass per state.
    """
    if hidden.ndim != 2 or len(hidden) != len(attention_mass):
        raise ModelError(f"attended vision: hidden states {hidden.shape} for {len(attention_mass)} attention masses")
    chosen = attended_positions(attention_mass, threshold)
    return hidden[chosen].mean(axis=0, dtype=np.float64).astype(np.float32), len(chosen)
