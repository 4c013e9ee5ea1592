"""Seeds: one per group where groups are clear, and swaps that lower the cost."""

import numpy as np

from vsel_platform.selection import seeding
from vsel_platform.selection.seeding import choose_seeds
from vsel_platform.selection.workers import workers


def cost(rows, seeds):
    return ((rows[:, None] - seeds[None]) ** 2).sum(-1).min(axis=1).sum()


def test_every_clear_group_gets_one_seed():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(25, 8)) * 20
    rows = (np.repeat(centres, 30, axis=0) + rng.normal(size=(750, 8))).astype(np.float32)
    with workers(1) as pool:
        seeds = choose_seeds(rows, 25, np.random.default_rng(1), pool)
    nearest = ((seeds[:, None] - centres[None]) ** 2).sum(-1).argmin(axis=1)
    assert sorted(nearest.tolist()) == list(range(25))


def test_swaps_lower_the_cost(monkeypatch):
    rows = np.random.default_rng(2).normal(size=(600, 4)).astype(np.float32)
    found = []
    for swaps in (0, 6):
        monkeypatch.setattr(seeding, "SWAPS_PER_CLUSTER", swaps)
        with workers(1) as pool:
            found.append(cost(rows, choose_seeds(rows, 20, np.random.default_rng(3), pool)))
    assert found[1] < found[0]


def test_seeds_are_distinct_rows():
    rows = np.repeat(np.arange(6, dtype=np.float32)[:, None], 10, axis=0) + 1
    with workers(1) as pool:
        seeds = choose_seeds(rows, 30, np.random.default_rng(0), pool)
    assert len(np.unique(seeds)) == len(seeds) == 6
