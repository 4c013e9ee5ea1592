"""Is a method better than random selection of the same size? All comparisons of a leaderboard, judged together.

For label m with n_m seeds and random with n_r seeds at one budget (y: mean over the seeds):

* Difference D = y_m - y_r. A joint draw D* adds to the cluster bootstrap of D (same resampled clusters for all runs)
  normal seed noise of variance sigma2 (1/n_m + 1/n_r), see `run_groups`; the noise of random is the same draw in all
  comparisons at its budget. The interval is symmetric: D +- the 95 % quantile of |D* - D|.
* Several comparisons: T = |D* - D| / scale with scale2 = Var(bootstrap of D) + sigma2 (1/n_m + 1/n_r); c is the 95 %
  quantile of the largest T over all comparisons of the leaderboard, all budgets together. Adjusted intervals are
  D +- c scale. A verdict needs an adjusted interval without zero, so the chance of any wrong verdict is about 5 %
  however many methods there are. This is Dunnett's comparison of many with one (J. Am. Stat. Assoc. 50 (1955) 1096)
  with a bootstrapped joint distribution (Westfall and Young, Resampling-Based Multiple Testing, 1993, single-step
  maxT). Holm's procedure gives no intervals, and does not use that all methods meet the same random runs.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vsel_platform.evaluation.run_groups import FULL, RANDOM, RunGroup
from vsel_platform.evaluation.seed_noise import SeedNoise
from vsel_platform.evaluation.statistics import LEVEL

Floats = NDArray[np.float64]
Verdict = Literal[
    "better than random", "worse than random", "not distinguishable from random", "random", "full data", "not judged"
]


def against_random(
    groups: Mapping[tuple[str, float], RunGroup], noise: Mapping[float, SeedNoise], sign: float
) -> tuple[dict[tuple[str, float], dict[str, Any]], float | None]:
    """Fields of a `LeaderboardRow` by (label, budget) of all comparisons, and the critical value c (None without any).

    `noise` is the seed noise by budget; `sign` is -1 if a lower value is better. Labels at a budget without random
    runs, or without a value, are not compared.
    """
    found, ratios = {}, []
    for key, group in groups.items():
        random = groups.get((RANDOM, group.budget))
        if group.label in (RANDOM, FULL) or random is None or not math.isfinite(group.value - random.value):
            continue
        difference = group.value - random.value
        seeds = noise[group.budget].added * (1 / len(group.runs) + 1 / len(random.runs))
        scale = math.sqrt(float(np.nanvar(group.questions - random.questions)) + seeds)
        away = np.abs(group.draws - random.draws - difference)
        # Without any spread (equal answers everywhere) there is nothing to divide by, and nothing is away.
        ratios.append(away / scale if scale else np.zeros_like(away))
        found[key] = (difference, scale, float(np.nanquantile(away, LEVEL)))
    if not found:
        return {}, None
    largest = np.fmax.reduce(ratios)
    critical = float(np.nanquantile(largest, LEVEL))
    return {
        key: _comparison(difference, scale, half, largest, critical, sign)
        for key, (difference, scale, half) in found.items()
    }, critical


def _comparison(
    difference: float, scale: float, half: float, largest: Floats, critical: float, sign: float
) -> dict[str, Any]:
    reach = critical * scale
    verdict: Verdict = "not distinguishable from random"
    if abs(difference) > reach:
        verdict = "better than random" if sign * difference > 0 else "worse than random"
    beyond = np.count_nonzero(largest * scale >= abs(difference))
    return {
        "difference": difference,
        "difference_low": difference - half,
        "difference_high": difference + half,
        "adjusted_low": difference - reach,
        "adjusted_high": difference + reach,
        "p_adjusted": float((beyond + 1) / (len(largest) + 1)),
        "verdict": verdict,
    }
