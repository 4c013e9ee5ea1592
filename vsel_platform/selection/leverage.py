"""Leverage scores of rows from streamed moments: no copy of the data, no singular value decomposition of it.

ScalSelect (arXiv 2602.11636) scores row i of the centred representations X = U S V^T by its squared length in the
leading left singular space, sum over j < k of U[i, j]^2. As U = X V S^-1 and V, S^2 are the eigenvectors and
eigenvalues of X^T X, the scatter matrix [d, d] is all that is needed; it adds up over blocks of rows.
"""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from vsel_platform.errors import SelectionError, StorageError

Matrix = NDArray[np.float64]
# float16, float32 or float64 [m, d].
Block = NDArray[Any]

ROWS_PER_TILE = 1024
# Rows of a matrix product are padded to whole register tiles, so that equal rows get equal scores wherever they stand.
ROW_MULTIPLE = 64
MIRRORED_ROWS = 128


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Number of rows n, their mean float64 [d], their scatter float64 [d, d]: sum of (x - mean)(x - mean)^T."""

    n: int
    mean: Matrix
    scatter: Matrix

    def to_bytes(self) -> bytes:
        """The moments as an npz archive without pickles; equal moments give equal bytes."""
        upper = np.concatenate([row[i:] for i, row in enumerate(self.scatter)])
        target = io.BytesIO()
        np.savez(target, n=np.int64(self.n), mean=self.mean, upper=upper)
        return target.getvalue()

    @staticmethod
    def from_bytes(data: bytes) -> "Moments":
        """Inverse of `to_bytes`, exactly. Raises StorageError for anything else."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                n, mean, upper = int(archive["n"]), archive["mean"], archive["upper"]
        except (ValueError, KeyError, TypeError, OSError, EOFError, BadZipFile) as error:
            raise StorageError(f"these bytes hold no moments ({error}); compute the moments again") from error
        d = len(mean) if mean.ndim == 1 else 0
        if n < 1 or upper.shape != (d * (d + 1) // 2,) or {mean.dtype, upper.dtype} != {np.dtype(np.float64)}:
            raise StorageError(f"moments of {n} rows: mean {mean.shape}, upper triangle {upper.shape} do not fit")
        scatter = np.empty((d, d))
        start = 0
        for i in range(d):
            scatter[i, i:] = upper[start : start + d - i]
            start += d - i
        return Moments(n, mean, _mirrored(scatter))


@dataclass(frozen=True, slots=True, eq=False)
class LeverageBasis:
    """The leading k directions of the transformed rows z = (x - mean) / scale.

    `projection` float64 [d, k] is V_k S_k^-1, so that the score of a row is |z projection|^2; `mean` (zeros if rows
    are not centred) and `scale` (ones if they are not standardised) float64 [d]; `eigenvalues` float64 [rank],
    descending: squared singular values of the matrix of the z; `explained_energy`: share of their sum in the first k.
    """

    k: int
    explained_energy: float
    mean: Matrix
    scale: Matrix
    projection: Matrix
    eigenvalues: Matrix


def moments_of(blocks: Iterable[Block]) -> Moments:
    """Moments of all rows of the blocks (float [m, d] each), in one pass.

    Depends on the rows and their order, not on where one block ends; works on `ROWS_PER_TILE` rows at a time.
    Raises SelectionError for no rows, blocks of different widths, or a value that is not finite.
    """
    from scipy.linalg.blas import dsyrk  # type: ignore[import-untyped]

    n, mean, scatter = 0, np.zeros(0), np.zeros((0, 0))
    for buffer, m in _tiles(blocks):
        if n == 0:
            mean, scatter = np.zeros(buffer.shape[1]), np.zeros((buffer.shape[1],) * 2, order="F")
        rows = buffer[:m]
        with np.errstate(over="ignore", invalid="ignore"):
            centre = rows.mean(axis=0)
        if not np.isfinite(centre).all():
            _refuse_not_finite(rows, n)
        rows -= centre
        # The shift between the means (Chan et al. 1983) is one more row of the product.
        buffer[m] = (centre - mean) * np.sqrt(n * m / (n + m))
        mean += (centre - mean) * (m / (n + m))
        n += m
        scatter = dsyrk(1.0, buffer[: m + 1].T, beta=1.0, c=scatter, lower=1, overwrite_c=1)
    return Moments(n, mean, _mirrored(scatter.T))


def merge(a: Moments, b: Moments) -> Moments:
    """Moments of the rows of both (Chan, Golub, LeVeque 1983). Raises SelectionError if their widths differ."""
    _require_same_width(a, b)
    n, delta = a.n + b.n, b.mean - a.mean
    scatter = _add_outer(a.scatter + b.scatter, delta * np.sqrt(a.n * b.n / n))
    return Moments(n, a.mean + delta * (b.n / n), scatter)


def without(a: Moments, b: Moments) -> Moments:
    """Moments of the rows of `a` that are not in `b`; `b` must be moments of some of the rows of `a`.

    Exact but for cancellation, so a column that varied only in the removed rows keeps a tiny variance. Raises
    SelectionError if widths differ or no row remains.
    """
    _require_same_width(a, b)
    n, delta = a.n - b.n, a.mean - b.mean
    if n < 1:
        raise SelectionError(f"{b.n} rows cannot be removed from {a.n} rows; compute the moments of the rest anew")
    scatter = _add_outer(b.scatter - a.scatter, delta * np.sqrt(a.n * b.n / n))
    np.negative(scatter, out=scatter)
    np.fill_diagonal(scatter, np.maximum(np.diagonal(scatter), 0.0))
    return Moments(n, a.mean + delta * (b.n / n), scatter)


def leverage_basis(moments: Moments, *, threshold: float, center: bool, standardize: bool) -> LeverageBasis:
    """Directions that hold the share `threshold` of the energy (squared singular values) of the transformed rows.

    k is the smallest number whose cumulative share is at least `threshold`; numerically zero directions never count,
    so threshold 1 gives the rank. `standardize` divides by the standard deviation (divisor n, with or without
    `center`; 1 for a constant column). Raises SelectionError for fewer than two rows, a threshold outside (0, 1],
    or rows without any energy.
    """
    from scipy.linalg import eigh  # type: ignore[import-untyped]

    if moments.n < 2 or not 0 < threshold <= 1:
        raise SelectionError(
            f"leverage needs two rows and a threshold in (0, 1]; got {moments.n} rows and threshold {threshold}"
        )
    mean, scale = _transform(moments, center, standardize)
    energy = moments.scatter.copy() if center else _add_outer(moments.scatter.copy(), moments.mean * np.sqrt(moments.n))
    if standardize:
        energy /= scale
        energy /= scale[:, None]
    # evd was faster than evr, and than eigenvalues first and then a tenth of the vectors.
    values, vectors = eigh(energy.T, driver="evd", overwrite_a=True, check_finite=False)
    values = values[::-1]
    floor = values[0] * max(moments.n, len(values)) * np.finfo(np.float64).eps
    rank = min(int((values > max(floor, 0.0)).sum()), moments.n - int(center))
    if rank == 0:
        raise SelectionError(f"the {moments.n} rows are all equal, so no direction tells them apart")
    shares = np.cumsum(values[:rank])
    shares /= shares[-1]
    k = min(int(np.searchsorted(shares, threshold)) + 1, rank)
    projection = np.ascontiguousarray(vectors[:, ::-1][:, :k]) / np.sqrt(values[:k])
    return LeverageBasis(k, float(shares[k - 1]), mean, scale, projection, values[:rank].copy())


def leverage_scores(blocks: Iterable[Block], basis: LeverageBasis) -> Matrix:
    """Leverage of every row of the blocks (float [m, d] each), float64 [n], in one pass.

    The scores of the rows that the basis was made of sum to k. Equal rows have equal scores. All arithmetic is
    float64. Raises SelectionError for no rows, a wrong width, or a value that is not finite.
    """
    weights = np.ascontiguousarray(basis.projection / basis.scale[:, None])
    pieces: list[Matrix] = []
    for buffer, m in _tiles(blocks):
        if buffer.shape[1] != len(weights):
            raise SelectionError(f"rows have {buffer.shape[1]} columns, the basis {len(weights)}; compute it anew")
        padded = -(-m // ROW_MULTIPLE) * ROW_MULTIPLE
        buffer[m:padded] = 0.0
        coordinates = np.subtract(buffer[:padded], basis.mean, out=buffer[:padded]) @ weights
        scores = np.einsum("ij,ij->i", coordinates, coordinates)[:m]
        if not np.isfinite(scores).all():
            _refuse_not_finite(buffer[:m], len(pieces) * ROWS_PER_TILE)
        pieces.append(scores)
    return np.concatenate(pieces)


def unit_rows(blocks: Iterable[Block], moments: Moments, *, center: bool, standardize: bool) -> Iterator[Matrix]:
    """Blocks of the transformed rows divided by their L2 norm, float64 [m, d]; zero rows stay zero.

    Normalising changes the scatter matrix, so it takes one more pass: `moments_of(unit_rows(...))`, then
    `leverage_basis(..., center=False, standardize=False)`, then `leverage_scores(unit_rows(...), basis)`.
    """
    mean, scale = _transform(moments, center, standardize)
    for buffer, m in _tiles(blocks):
        rows = (buffer[:m] - mean) / scale
        norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
        yield rows / np.where(norms == 0, 1.0, norms)


def _transform(moments: Moments, center: bool, standardize: bool) -> tuple[Matrix, Matrix]:
    mean = moments.mean if center else np.zeros_like(moments.mean)
    if not standardize:
        return mean, np.ones_like(mean)
    deviation = np.sqrt(np.diagonal(moments.scatter) / moments.n)
    return mean, np.where(deviation == 0, 1.0, deviation)


def _tiles(blocks: Iterable[Block]) -> Iterator[tuple[Matrix, int]]:
    """(buffer [ROWS_PER_TILE + 1, d], number of rows in it); the buffer may be overwritten by the caller."""
    buffer, filled, n = np.zeros((0, 0)), 0, 0
    for block in blocks:
        if block.ndim != 2 or block.dtype.kind != "f" or (n and block.shape[1] != buffer.shape[1]):
            expected = f"[m, {buffer.shape[1]}]" if n else "[m, d]"
            raise SelectionError(f"after row {n}: expected a float matrix {expected}, got {block.dtype} {block.shape}")
        if not n:
            buffer = np.empty((ROWS_PER_TILE + 1, block.shape[1]))
        for start in range(0, len(block), ROWS_PER_TILE):
            rows = block[start : start + ROWS_PER_TILE]
            while len(rows):
                taken = rows[: ROWS_PER_TILE - filled]
                buffer[filled : filled + len(taken)] = taken
                filled, n, rows = filled + len(taken), n + len(taken), rows[len(taken) :]
                if filled == ROWS_PER_TILE:
                    yield buffer, filled
                    filled = 0
    if filled:
        yield buffer, filled
    if not n:
        raise SelectionError("leverage: there are no rows; compute the representations first")


def _mirrored(upper: Matrix) -> Matrix:
    """The upper triangle copied onto the lower one, in place."""
    for start in range(0, len(upper), MIRRORED_ROWS):
        end = start + MIRRORED_ROWS
        corner = np.triu(upper[start:end, start:end])
        upper[start:end, start:end] = corner + np.triu(corner, 1).T
        upper[end:, start:end] = upper[start:end, end:].T
    return upper


def _add_outer(matrix: Matrix, vector: Matrix) -> Matrix:
    """matrix + vector vector^T, in place; a symmetric matrix stays exactly symmetric."""
    for i, value in enumerate(vector):
        matrix[i] += value * vector
    return matrix


def _require_same_width(a: Moments, b: Moments) -> None:
    if len(a.mean) != len(b.mean):
        raise SelectionError(f"moments of {len(a.mean)} and {len(b.mean)} columns belong to different representations")


def _refuse_not_finite(rows: Matrix, first: int) -> None:
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    where = f"row {first + int(bad[0])} (from 0) has a value that" if len(bad) else f"the sum from row {first} on"
    raise SelectionError(f"{where} is not finite; leave such rows out")
