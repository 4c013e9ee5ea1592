"""ScalSelect's leverage scores: streamed moments against the singular value decompositions of the released code.

    python benchmarks/bench_leverage.py            # 40,000 x 1,024 and 100,000 x 4,096; the baseline takes minutes
    python benchmarks/bench_leverage.py --quick    # 4,000 x 256 and 6,000 x 512; speed is printed, not required

1. Decomposition: baseline is two full `numpy.linalg.svd` of the centred float32 matrix, as `cur.py` does (one for k,
   one for the scores); ours is `moments_of`, `leverage_basis` and `leverage_scores` of the same rows.
2. Stream: float16 blocks made on the fly, in a process of its own, so that its peak of resident memory is known. The
   time inside the generator does not count. Rate = 2 n d d FLOP, the Gram matrix as a general product, by the seconds
   of `moments_of` in all (conversion, mean, centring, product), against the better of sgemm and dgemm, both measured
   between the blocks of the same pass (the fastest product counts).
   `dsyrk` computes one triangle, n d (d + 1) FLOP; that rate is compared with dgemm, and must hold too.
3. Update: moments of 1 % new rows, merged, against all rows at once: moments and scores equal, seconds against the
   first pass over the old rows (best of several repeats for the update).

Rows are like hidden states of a language model: a common offset, a few columns of large values, energy that decays
over mixed directions, and noise. Exit status 1 if a target is missed.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsel_platform.selection.leverage import (
    LeverageBasis,
    Moments,
    leverage_basis,
    leverage_scores,
    merge,
    moments_of,
)

RATIO = 40.0
SCORES = 1e-6
RATE = 0.7
MEMORY_GIB = 2.0
EXACT = 1e-9
UPDATE = 0.03
THRESHOLD = 0.9
SEED = 12345
BLOCK_ROWS = 4096
REPEATS = 5


class Rows:
    """Seeded blocks of synthetic representations [BLOCK_ROWS, d]; `seconds` sums the time spent in making them."""

    def __init__(self, d: int, dtype: type[np.floating]) -> None:
        rng = np.random.default_rng(SEED)
        n_mixed = d // 4
        self.dtype, self.seconds = dtype, 0.0
        self.decay = (1 / np.arange(1, n_mixed + 1) ** 0.7).astype(np.float32)
        self.mix = rng.standard_normal((n_mixed, d), dtype=np.float32)
        self.offset = rng.standard_normal(d, dtype=np.float32)
        self.column_scale = np.ones(d, np.float32)
        self.column_scale[rng.choice(d, 3, replace=False)] = 8

    def blocks(self, n: int, products: Sequence["Products"] = ()) -> Iterator[NDArray[Any]]:
        """n rows in blocks of BLOCK_ROWS; between them each of the products is timed."""
        for number, start in enumerate(range(0, n, BLOCK_ROWS)):
            for product in products:
                product.sample()
            yield self.block(number, min(BLOCK_ROWS, n - start))

    def block(self, number: int, n: int) -> NDArray[Any]:
        """n rows, others for every number."""
        start = time.perf_counter()
        rng = np.random.default_rng([SEED, number])
        rows = (rng.standard_normal((n, len(self.mix)), dtype=np.float32) * self.decay) @ self.mix
        rows += np.float32(0.3) * rng.standard_normal(rows.shape, dtype=np.float32) + self.offset
        result = (rows * self.column_scale).astype(self.dtype)
        self.seconds += time.perf_counter() - start
        return result


@dataclass(frozen=True)
class Update:
    """Adding rows: seconds, largest relative difference of the moments, largest difference of the scores."""

    seconds: float
    moments: float
    scores: float


@dataclass(frozen=True)
class Stream:
    """What the child process measured; seconds without the generator, rates in GFLOP/s."""

    n: int
    k: int
    moments_s: float
    basis_s: float
    scores_s: float
    memory_gib: float
    sgemm: float
    dgemm: float
    update: Update


def best(work: Callable[[], Any], repeats: int = REPEATS) -> tuple[float, Any]:
    """(least seconds, last result)."""
    seconds, result = float("inf"), None
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        seconds = min(seconds, time.perf_counter() - start)
    return seconds, result


def basis_of(moments: Moments) -> LeverageBasis:
    """The paper's setting: centred only."""
    return leverage_basis(moments, threshold=THRESHOLD, center=True, standardize=False)


def relative(a: Moments, b: Moments) -> float:
    """Largest difference of mean or scatter, relative to the largest entry."""
    mean = np.abs(a.mean - b.mean).max() / np.abs(b.mean).max()
    scatter = max(float(np.abs(x - y).max()) for x, y in zip(a.scatter, b.scatter, strict=True))
    return max(float(mean), scatter / float(np.abs(b.scatter).max()))


def released_way(data: NDArray[np.float32]) -> tuple[float, NDArray[np.float32], int]:
    """(seconds, scores float32 [n], k) of two full decompositions."""
    start = time.perf_counter()
    centred = data - data.mean(axis=0, keepdims=True)
    values = np.linalg.svd(centred, full_matrices=False)[1]
    energy = np.cumsum(values**2) / np.sum(values**2)
    k = int(np.searchsorted(energy, THRESHOLD)) + 1
    left = np.linalg.svd(centred, full_matrices=False)[0]
    scores = np.sum(left[:, :k] ** 2, axis=1)
    return time.perf_counter() - start, scores, k


def our_way(blocks: list[NDArray[Any]]) -> tuple[NDArray[np.float64], int]:
    """(scores float64 [n], k)."""
    basis = basis_of(moments_of(blocks))
    return leverage_scores(blocks, basis), basis.k


def compare_decomposition(n: int, d: int, *, required: bool) -> bool:
    """Part 1 and the update of its rows; False if a target is missed."""
    rows = Rows(d, np.float32)
    blocks = [*rows.blocks(n)]
    data = np.concatenate(blocks)
    moments_of([data[:1000]])  # libraries are loaded outside the clock
    first, old = best(lambda: moments_of(blocks))
    seconds, (scores, k) = best(lambda: our_way(blocks))
    new = [rows.block(n, n // 100)]
    update_s, merged = best(lambda: merge(old, moments_of(new)))
    scratch = moments_of([*blocks, *new])
    found, expected = (leverage_scores([*blocks, *new], basis_of(m)) for m in (merged, scratch))
    update = Update(update_s, relative(merged, scratch), float(np.abs(found - expected).max()))
    theirs, reference, their_k = released_way(data)
    difference = float(np.abs(scores - reference).max()) if k == their_k else float("inf")
    print(f"decomposition: {n:,} x {d:,} float32, k = {k} (released way: {their_k})")
    print(f"  two SVDs {theirs:.2f} s, ours {seconds:.3f} s: ratio {theirs / seconds:.1f}")
    print(f"  largest difference of scores {difference:.1e}")
    fits = report_update(update, n // 100, first, required=required)
    return fits and difference <= SCORES and (not required or theirs / seconds >= RATIO)


def report_update(update: Update, n_new: int, first: float, *, required: bool) -> bool:
    """Print part 3; False if a target is missed."""
    share = update.seconds / first
    print(f"  {n_new:,} new rows: {1e3 * update.seconds:.1f} ms, {100 * share:.2f} % of the first pass ({first:.2f} s)")
    print(f"  moments differ by {update.moments:.1e} (relative), scores by {update.scores:.1e}")
    return max(update.moments, update.scores) <= EXACT and (not required or share < UPDATE)


def stream(n: int, d: int) -> Stream:
    """Parts 2 and 3 in this process."""
    rows = Rows(d, np.float16)
    moments_of([rows.block(0, 1000)])

    def clocked(work: Callable[[], Any]) -> tuple[float, Any]:
        aside, start = rows.seconds, time.perf_counter()
        result = work()
        return time.perf_counter() - start - (rows.seconds - aside), result

    single, double = Products(d, np.float32), Products(d, np.float64)
    moments_s, moments = clocked(lambda: moments_of(rows.blocks(n, [single, double])))
    moments_s -= sum(single.seconds + double.seconds)
    basis_s, basis = clocked(lambda: basis_of(moments))
    scores_s, scores = clocked(lambda: leverage_scores(rows.blocks(n), basis))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if abs(scores.sum() - basis.k) > 1e-6 or moments.n != n:
        raise SystemExit(f"stream: scores of {moments.n} rows of {n} sum to {scores.sum()}, not to k = {basis.k}")
    new = rows.block(n, n // 100)
    update_s, merged = best(lambda: merge(moments, moments_of([new])))
    scratch = moments_of(chain(rows.blocks(n), [new]))
    found, expected = (leverage_scores(chain(rows.blocks(n), [new]), basis_of(m)) for m in (merged, scratch))
    update = Update(update_s, relative(merged, scratch), float(np.abs(found - expected).max()))
    return Stream(n, basis.k, moments_s, basis_s, scores_s, memory, single.rate(), double.rate(), update)


class Products:
    """Matrix products [BLOCK_ROWS / 2, d] x [d, d], timed now and then."""

    def __init__(self, d: int, dtype: type[np.floating]) -> None:
        rng = np.random.default_rng(0)
        self.left, self.right = rng.random((BLOCK_ROWS // 2, d)).astype(dtype), rng.random((d, d)).astype(dtype)
        self.out = self.left @ self.right
        self.seconds: list[float] = []

    def sample(self) -> None:
        """One product more."""
        start = time.perf_counter()
        np.matmul(self.left, self.right, out=self.out)
        self.seconds.append(time.perf_counter() - start)

    def rate(self) -> float:
        """GFLOP/s of the fastest product."""
        return 2e-9 * self.left.size * len(self.right) / min(self.seconds)


def compare_stream(n: int, d: int, *, required: bool) -> bool:
    """Parts 2 and 3 in a child process; False if a target is missed."""
    command = [sys.executable, __file__, "--stream", str(n), str(d)]
    fields = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    found = Stream(**fields | {"update": Update(**fields["update"])})
    general, triangle = (1e-9 * found.n * d * x / found.moments_s for x in (2 * d, d + 1))
    shares = general / max(found.sgemm, found.dgemm), triangle / found.dgemm
    print(f"stream: {found.n:,} x {d:,} float16, k = {found.k}, peak {found.memory_gib:.2f} GiB resident")
    print(f"  moments {found.moments_s:.2f} s, basis {found.basis_s:.2f} s, scores {found.scores_s:.2f} s")
    print(f"  sgemm {found.sgemm:.0f}, dgemm {found.dgemm:.0f} GFLOP/s in the same pass")
    print(f"  2 n d d: {general:.0f} GFLOP/s, {100 * shares[0]:.0f} % of the better of them")
    print(f"  n d (d + 1), as dsyrk computes: {triangle:.0f} GFLOP/s, {100 * shares[1]:.0f} % of dgemm")
    fits = report_update(found.update, found.n // 100, found.moments_s, required=required)
    return fits and found.memory_gib < MEMORY_GIB and (not required or min(shares) >= RATE)


def main() -> int:
    """Run, print, and say by the exit status whether the targets hold."""
    parser = argparse.ArgumentParser(description="leverage scores")
    parser.add_argument("--quick", action="store_true", help="small sizes; speed is printed, not required")
    parser.add_argument("--stream", nargs=2, type=int, metavar=("N", "D"), help="the stream alone, as JSON")
    options = parser.parse_args()
    if options.stream:
        print(json.dumps(asdict(stream(*options.stream))))
        return 0
    sizes = ((4_000, 256), (6_000, 512)) if options.quick else ((40_000, 1_024), (100_000, 4_096))
    passed = compare_stream(*sizes[1], required=not options.quick)
    passed &= compare_decomposition(*sizes[0], required=not options.quick)
    print(f"required: scores within {SCORES}, moments and updated scores within {EXACT}, under {MEMORY_GIB} GiB;")
    print(f"at full size ratio {RATIO}, {RATE:.0%} of the products' rates, an update under {UPDATE:.0%}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
