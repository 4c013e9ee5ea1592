"""Random numbers that belong to ids: the same whatever the order, and for ever."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def stable_uniform(seed: int, ids: Sequence[str], purpose: str = "") -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), float64 [n]: the first 53 bits of sha256(seed, purpose, id).

    Draws of different purposes are independent, so that two methods with one seed do not pick the same rows.
    """
    prefix = f"{seed}\n{purpose}\n".encode() if purpose else f"{seed}\n".encode()
    words = (int.from_bytes(hashlib.sha256(prefix + i.encode()).digest()[:8], "big") >> 11 for i in ids)
    return np.fromiter((word * 2.0**-53 for word in words), np.float64, len(ids))
