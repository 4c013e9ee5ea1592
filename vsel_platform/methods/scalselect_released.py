"""ScalSelect as released: attended-vision vectors, the feature file, leverage scores by a full SVD.

Specification: commit 74375d3 of the released code (specification B1.3 to B1.5). Kept for comparison; its quirks are
described at each function. Defaults: `signals.attended_vision`, `selection.leverage`.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from vsel_platform.errors import DataError, SelectionError

Vectors = NDArray[np.float32]
FEATURE_FILE = "all_representations"


def attended_vision_released(
    hidden: Vectors, attention: Vectors, user: Sequence[int], vision: Sequence[int], threshold: float
) -> tuple[Vectors, NDArray[np.int64]]:
    """Mean hidden state of the attended vision tokens, float32 [d], and which of `vision` they are, best first.

    `hidden` float32 [1, S, d] or [S, d]; `attention` [S, S] (mean over heads) or [B, heads, S, S], which is averaged
    over its first two dimensions; `user` and `vision`: positions. Taken are the tokens of largest attention up to and
    with the first whose cumulative float32 share exceeds `threshold`, all if none does; without any attention all
    shares are equal. Equal shares, which the released sort leaves open, are in order of position. Raises DataError
    for no user or no vision positions.
    """
    if not len(user) or not len(vision):
        raise DataError(f"{len(user)} instruction and {len(vision)} vision tokens: leave such a row out")
    maps = attention.mean(axis=(0, 1), dtype=np.float32) if attention.ndim == 4 else attention
    received = maps[np.ix_(user, vision)].mean(axis=0, dtype=np.float32)
    total = received.sum(dtype=np.float32)
    shares = received / total if total > 0 else np.full(len(vision), 1 / len(vision), np.float32)
    order = np.argsort(-shares, kind="stable")
    # torch's cumulative sum of float32 adds in float64 and rounds every partial sum.
    cumulative = np.cumsum(shares[order], dtype=np.float64).astype(np.float32)
    count = min(int((cumulative <= np.float32(threshold)).sum()) + 1, len(vision))
    chosen = order[:count]
    states = hidden.reshape(-1, hidden.shape[-1])
    return states[np.asarray(vision)[chosen]].mean(axis=0, dtype=np.float32), chosen


def save_representations(
    records: Sequence[Mapping[str, Any]], folder: Path, metadata: Mapping[str, Any]
) -> tuple[Path, Path]:
    """Write `all_representations.npz` and `.json`; records `{"sample_id", "combined_repr": float [d]}`.

    A repeated id keeps its first position and takes the last vector, a missing id becomes "unknown", a record without
    vector is skipped; `num_samples` of the JSON counts the records given. Raises DataError if no vector is left.
    """
    vectors = {str(r.get("sample_id", "unknown")): r["combined_repr"] for r in records if "combined_repr" in r}
    if not vectors:
        raise DataError(f"none of {len(records)} records has a vector; nothing was written to {folder}")
    arrays, described = folder / f"{FEATURE_FILE}.npz", folder / f"{FEATURE_FILE}.json"
    matrix = np.stack([np.asarray(vector, np.float32) for vector in vectors.values()])
    np.savez_compressed(arrays, representations=matrix, sample_ids=np.array(list(vectors), np.str_))
    described.write_text(json.dumps({"metadata": dict(metadata), "num_samples": len(records)}, indent=2), "utf-8")
    return arrays, described


def load_representations(path: Path) -> tuple[NDArray[Any], list[str]]:
    """Representations float [n, d] and ids as text from a feature file (or the folder that holds it).

    Raises DataError for a file without these two arrays of equal length; pickled arrays are refused.
    """
    file = path / f"{FEATURE_FILE}.npz" if path.is_dir() else path
    try:
        with np.load(file, allow_pickle=False) as archive:
            matrix, ids = archive["representations"], archive["sample_ids"]
    except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile, zlib.error) as error:
        raise DataError(f"{file} is no feature file ({error}); extract the representations again") from error
    if matrix.ndim != 2 or ids.shape != matrix.shape[:1]:
        raise DataError(f"{file}: representations {matrix.shape} and sample_ids {ids.shape} do not fit together")
    return matrix, [str(i) for i in ids]


def parse_released_id(text: str) -> int:
    """Digits as they are, otherwise the integer after the last "_"; 0 without "_", so different ids may collide.

    Raises DataError if what follows the last "_" is no integer.
    """
    if text.isdecimal():
        return int(text)
    if "_" not in text:
        return 0
    try:
        return int(text.rsplit("_", 1)[1])
    except ValueError as error:
        raise DataError(f"id {text!r} does not end in an integer; mode released needs integer ids") from error


def released_scores(
    representations: NDArray[Any],
    ids: Sequence[str],
    *,
    threshold: float,
    center: bool,
    standardize: bool,
    l2: bool,
    n_directions: int | None = None,
) -> tuple[list[tuple[int, float]], int]:
    """(parsed id, leverage) of every row, highest first, and the number k of directions.

    `representations` [n, d], taken as float32 unless float64. Rows are centred, divided by their columns' standard
    deviation and normalised, as asked; k is the smallest number of singular values with `threshold` of the energy,
    which at threshold 1 float32 rounding decides: `n_directions` fixes k instead. Equal scores are in no particular
    order. Raises SelectionError for an array that is no matrix with one row per id or is not finite.
    """
    data = np.asarray(representations)
    data = data.astype(np.float64 if data.dtype == np.float64 else np.float32)
    if data.ndim != 2 or not data.size or len(data) != len(ids) or not np.isfinite(data).all():
        raise SelectionError(f"{len(ids)} ids need a finite matrix with a row each; got {data.dtype} {data.shape}")
    left, values, _ = np.linalg.svd(_preprocessed(data, center, standardize, l2), full_matrices=False)
    energy = np.cumsum(values**2) / np.sum(values**2)
    found = int(np.searchsorted(energy, threshold)) + 1
    k = min(max(found if n_directions is None else n_directions, 1), len(values))
    scores = np.sum(left[:, :k] ** 2, axis=1)
    parsed = [parse_released_id(i) for i in ids]
    return [(parsed[row], float(scores[row])) for row in np.argsort(scores)[::-1]], k


def _preprocessed(data: NDArray[Any], center: bool, standardize: bool, l2: bool) -> NDArray[Any]:
    if center:
        data = data - data.mean(axis=0, keepdims=True)
    if standardize:
        deviation = data.std(axis=0, keepdims=True)
        data = data / np.where(deviation == 0, 1, deviation)
    if l2:
        norms = np.linalg.norm(data, axis=1, keepdims=True)
        data = data / np.where(norms == 0, 1, norms)
    return data
