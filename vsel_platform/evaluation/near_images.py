"""Training images that look like images of a benchmark: cosines of embeddings, block by block."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vsel_platform.errors import DataError

Vectors = NDArray[np.float32]

# A product of float32 unit vectors is off by less; what comes this close to the threshold is computed in float64.
_TOLERANCE = 1e-4
_BLOCK_VALUES = 16_000_000


@dataclass(frozen=True, slots=True)
class NearImage:
    """A training image that nearly is a benchmark's: identities of both, cosine of their embeddings."""

    train_image: str
    benchmark_image: str
    cosine: float


def near_images(
    blocks: Iterable[tuple[Sequence[str], Vectors]],
    benchmark_ids: Sequence[str],
    benchmark_vectors: Vectors,
    threshold: float,
) -> list[NearImage]:
    """Pairs of different images with a cosine >= `threshold`, sorted by the benchmark's image, nearest first.

    blocks: identities [n] and unit vectors float32 [n, d] of training images, as many blocks as there are.
    benchmark_vectors: float32 [m, d] of the same encoder. At most 64 MB of products are in memory at a time. Cosines
    are rounded to six decimals. A vector that is zero or not finite is like nothing. Raises DataError if a vector has
    another length than 1, or the sizes do not fit.
    """
    theirs = _checked("benchmark", benchmark_ids, benchmark_vectors)
    found: dict[tuple[str, str], float] = {}
    step = max(1, _BLOCK_VALUES // max(1, len(theirs)))
    for ids, vectors in blocks:
        ours = _checked("training", ids, vectors)
        if len(theirs) and len(ours) and ours.shape[1] != theirs.shape[1]:
            raise DataError(
                f"embeddings of training images have {ours.shape[1]} dimensions, of benchmark images "
                f"{theirs.shape[1]}; compute both with the same encoder"
            )
        for start in range(0, len(ours) if len(theirs) else 0, step):
            for row, column, cosine in _pairs(ours[start : start + step], theirs, threshold):
                if ids[start + row] != benchmark_ids[column]:
                    found[benchmark_ids[column], ids[start + row]] = cosine
    pairs = [NearImage(ours, theirs, cosine) for (theirs, ours), cosine in found.items()]
    return sorted(pairs, key=lambda pair: (pair.benchmark_image, -pair.cosine, pair.train_image))


def _checked(name: str, ids: Sequence[str], vectors: Vectors) -> Vectors:
    """Vectors with zeros in the place of those that cannot be compared."""
    if vectors.ndim != 2 or len(vectors) != len(ids):
        raise DataError(f"{len(ids)} {name} images have embeddings of shape {vectors.shape}; one row each is needed")
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    usable = np.isfinite(lengths) & (lengths > 0)
    odd = usable & (np.abs(lengths - 1) > 1e-3)
    if odd.any():
        first = int(np.flatnonzero(odd)[0])
        raise DataError(
            f"the embedding of {name} image {ids[first]} has length {lengths[first]:.4g}; give unit vectors"
        )
    return vectors if usable.all() else np.where(usable[:, None], vectors, np.float32(0))


def _pairs(ours: Vectors, theirs: Vectors, threshold: float) -> Iterator[tuple[int, int, float]]:
    rows, columns = np.nonzero(ours @ theirs.T >= threshold - _TOLERANCE)
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        a, b = ours[row].astype(np.float64), theirs[column].astype(np.float64)
        length = float(np.linalg.norm(a) * np.linalg.norm(b))
        cosine = round(float(a @ b) / length, 6) if length else 0.0
        if length and cosine >= threshold:
            yield row, column, min(cosine, 1.0)
