"""Simulated models that answer a benchmark: questions of one image share its difficulty, runs have seed noise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vsel_platform.evaluation.benchmark import Measure, ratio_measure
from vsel_platform.evaluation.run_groups import Run


@dataclass
class Answers:
    """Answers of models to `clusters` images with `per` questions each.

    seed_sd: quality that differs between runs. own: what a run finds hard by itself, question by question.
    """

    rng: np.random.Generator
    n_clusters: int = 80
    per: int = 3
    seed_sd: float = 0.1
    own: float = 0.5

    def __post_init__(self) -> None:
        n = self.n_clusters * self.per
        self.clusters = [f"image {i // self.per:04d}" for i in range(n)]
        self.easy = np.repeat(self.rng.normal(0, 1, self.n_clusters), self.per) + self.rng.normal(0, 0.7, n)

    def measure(self, quality: float = 0.0) -> Measure:
        """One run of a model: percent of right answers."""
        noise = self.own * self.rng.standard_normal(len(self.easy))
        right = self.easy + quality + self.rng.normal(0, self.seed_sd) + noise > 0
        return ratio_measure("exact match", right.astype(float), np.ones(len(right)))

    def run(self, label: str, budget: float, seed: int, quality: float = 0.0) -> Run:
        """A run with its costs."""
        name = f"{label}-{budget:g}-{seed}"
        selection = None if label in ("random", "full") else 3.0 + seed
        return Run(name, label, budget, seed, self.measure(quality), selection, 60.0, round(10 * budget))

    def runs(
        self, qualities: Mapping[str, float], budgets: Sequence[float] = (5.0, 20.0), *, seeds: int = 1, random: int = 5
    ) -> list[Run]:
        """Random runs and runs of every label in `qualities` (above random) at every budget."""
        found = []
        for budget in budgets:
            found += [self.run("random", budget, seed, budget / 50) for seed in range(random)]
            for label, quality in qualities.items():
                found += [self.run(label, budget, seed, budget / 50 + quality) for seed in range(seeds)]
        return found
