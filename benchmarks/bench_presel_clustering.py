"""PreSel inside one task, k-means and typical selection, against the released way on the same vectors.

Baseline: scikit-learn's KMeans with defaults (greedy k-means++, Lloyd) and exact neighbours by a faiss index per
cluster, as PreSel's `kmeans_clust.py` does. Ours: `score_images` and `select_task`. Both sides get the same float32
vectors and all cores, and select 15 %. The inertia of both is computed from their labels: the sum of the squared
distances to the mean of the own cluster.

    python benchmarks/bench_presel_clustering.py            # 40,000 x 768, 400 clusters
    python benchmarks/bench_presel_clustering.py --small    # for CI: checks the inertia, prints the ratio

Data `mixture`: groups of unequal size that overlap, with the spectrum that a pretrained CNN's embeddings of pictures
have (two thirds of the variance in 64 of 768 dimensions). Data `isotropic`: directions without any structure, the
worst case for a projection, where few iterations are enough for either side. Exit status 1 if a mixture misses the
ratio or any data set the inertia.
"""

import argparse
import sys
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vsel_platform.methods.presel import PreselOptions, PreselRows, score_images, select_task

GOAL = 40.0
RATIO = 20.0  # below this something got slower; the goal is not reached on two cores (docs/benchmarks.md)
INERTIA = 1.005
FRACTION = 0.15
SEED = 12345
Vectors = NDArray[np.float32]


def mixture(n: int, d: int, seed: int) -> Vectors:
    """Groups with Zipf-like sizes, nearly as wide as they lie apart; variance falls as 1/i over the dimensions."""
    rng = np.random.default_rng(seed)
    n_groups = max(2, round(n * 0.015))
    sizes = 1 / np.arange(1, n_groups + 1) ** 0.6
    scale = (1 / np.sqrt(np.arange(1, d + 1))).astype(np.float32)
    centres = rng.standard_normal((n_groups, d), dtype=np.float32) * scale
    spread = 0.9 * rng.standard_normal((n, d), dtype=np.float32) * scale
    return centres[rng.choice(n_groups, n, p=sizes / sizes.sum())] + spread


def isotropic(n: int, d: int, seed: int) -> Vectors:
    """Independent normal numbers."""
    return np.random.default_rng(seed).standard_normal((n, d), dtype=np.float32)


@dataclass(frozen=True)
class Run:
    """What one side did: seconds, clusters int [n], selected positions."""

    seconds: float
    labels: NDArray[np.int64]
    selected: list[int]


def released_way(vectors: Vectors, n_clusters: int, budget: int) -> Run:
    """k-means and selection with the libraries and the loops of the released code."""
    import faiss
    from sklearn.cluster import KMeans
    from sklearn.preprocessing import normalize

    start = time.perf_counter()
    data = normalize(vectors)
    labels = KMeans(n_clusters=n_clusters, random_state=SEED).fit_predict(data)
    free = set(range(len(data)))
    selected: list[int] = []
    for label in range(n_clusters):
        members = list(set(np.flatnonzero(labels == label).tolist()) & free)
        count = min(round(len(members) / len(free) * budget), len(members))
        if count == 0:
            continue
        index = faiss.IndexFlatIP(data.shape[1])
        index.add(data[members])
        similarity, _ = index.search(data[members], min(5, len(members) - 1) + 1)
        best = np.argsort(-similarity[:, 1:].mean(axis=1)) if len(members) > 1 else [0]
        selected += [members[i] for i in best[:count]]
    return Run(time.perf_counter() - start, labels.astype(np.int64), selected)


def our_way(vectors: Vectors, n_clusters: int, budget: int, seed: int) -> Run:
    """The engine's public functions."""
    names = [f"{i:08d}" for i in range(len(vectors))]
    start = time.perf_counter()
    options = PreselOptions(cluster_fraction=n_clusters / len(vectors))
    scores = score_images(names, vectors, set(), options, seed=seed)
    labels = np.fromiter((scores.clusters[name] for name in names), np.int32, len(names))
    typical = np.fromiter((scores.typicality[name] for name in names), np.float64, len(names))
    free = np.zeros(len(names), np.bool_)
    rows = PreselRows(names, ["task"] * len(names), names, free, labels, typical)
    selected = select_task(rows, range(len(names)), budget, options)
    return Run(time.perf_counter() - start, labels.astype(np.int64), selected)


def inertia(vectors: Vectors, labels: NDArray[np.int64]) -> float:
    """Sum of squared distances of normalised rows to the mean of their cluster, in float64."""
    data = vectors.astype(np.float64)
    data /= np.linalg.norm(data, axis=1, keepdims=True)
    total = float((data**2).sum())
    for label in np.unique(labels):
        members = data[labels == label]
        total -= float((members.sum(axis=0) ** 2).sum()) / len(members)
    return total


def compare(name: str, vectors: Vectors, repeats: int) -> tuple[float, float]:
    """(ratio of seconds, worst ratio of inertias over the repeats, each with another seed)."""
    n = len(vectors)
    n_clusters, budget = max(1, n // 100), round(FRACTION * n)
    our_way(vectors[:2000], 20, 300, 0)  # libraries are loaded outside the clock
    ours = [our_way(vectors, n_clusters, budget, seed) for seed in range(repeats)]
    theirs = released_way(vectors, n_clusters, budget)
    reference = inertia(vectors, theirs.labels)
    inertias = [inertia(vectors, run.labels) / reference for run in ours]
    if any(len(set(run.selected)) != budget for run in ours):
        raise SystemExit(f"{name}: a selection does not have {budget} distinct rows")
    ratio = theirs.seconds / min(run.seconds for run in ours)
    seconds = ", ".join(f"{run.seconds:.2f}" for run in ours)
    print(f"{name}: {n:,} x {vectors.shape[1]}, {n_clusters} clusters, {budget:,} rows selected")
    print(f"  released way {theirs.seconds:.2f} s, ours {seconds} s: ratio {ratio:.1f}")
    print(f"  inertia ours / released: {', '.join(f'{value:.4f}' for value in inertias)}")
    return ratio, max(inertias)


def main() -> int:
    """Run, print, and say by the exit status whether the gates hold."""
    parser = argparse.ArgumentParser(description="PreSel clustering and typical selection")
    parser.add_argument("--small", action="store_true", help="8,000 x 384; the ratio is printed, not required")
    parser.add_argument("--repeats", type=int, default=3, help="runs of our side, with different seeds")
    options = parser.parse_args()
    n, d = (8_000, 384) if options.small else (40_000, 768)
    failed = False
    for name, make in (("mixture", mixture), ("isotropic", isotropic)):
        ratio, worst = compare(name, make(n, d, SEED), options.repeats)
        failed |= worst > INERTIA or (name == "mixture" and not options.small and ratio < RATIO)
    print(f"required: inertia at most {INERTIA}; at full size a mixture ratio of {RATIO} at least (goal: {GOAL})")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
