"""Leverage scores as a method: against the singular value decomposition, whatever the blocks."""

import numpy as np
import pytest
from array_signals import signals_of
from pydantic import ValidationError

from vsel_platform.methods.scalselect import (
    SIGNAL,
    ReleasedLeverageOptions,
    ScalselectOptions,
    leverage,
    leverage_released,
)

RNG = np.random.default_rng(0)
ROWS = 60
MATRIX = (RNG.normal(size=(ROWS, 12)) * np.linspace(3, 0.1, 12) + 2).astype(np.float32)


def signals(order=None, block_rows=7):
    index = np.arange(ROWS)
    index[5] = -1
    found = signals_of("a" * ROWS, matrices={SIGNAL: (index, MATRIX)})
    found.block_rows = block_rows
    return found


def oracle(threshold=0.9):
    rows = np.delete(MATRIX.astype(np.float64), 5, axis=0)
    left, values, _ = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    share = np.cumsum(values**2) / np.sum(values**2)
    k = int(np.searchsorted(share, threshold)) + 1
    return np.insert((left[:, :k] ** 2).sum(axis=1), 5, np.nan), k


@pytest.mark.parametrize("block_rows", [1, 7, 100])
def test_scores_are_those_of_the_decomposition(block_rows):
    expected, k = oracle()
    found = leverage(signals(block_rows=block_rows), ScalselectOptions())
    np.testing.assert_allclose(found.score, expected, atol=1e-9)
    assert np.nansum(found.score) == pytest.approx(k, abs=1e-6)
    assert f"{k} directions" in found.notes[0]


def test_a_larger_threshold_takes_more_directions():
    sums = [np.nansum(leverage(signals(), ScalselectOptions(threshold=t)).score) for t in (0.5, 0.9, 0.99)]
    assert sums == sorted(sums)
    assert sums[0] < sums[-1]


def test_equal_vectors_have_equal_scores():
    matrix = MATRIX.copy()
    matrix[7] = matrix[3]
    found = leverage(signals_of("a" * ROWS, matrices={SIGNAL: (np.arange(ROWS), matrix)}), ScalselectOptions())
    assert found.score[3] == found.score[7]


@pytest.mark.parametrize("options", [{"threshold": 0}, {"threshold": 1.1}, {"other": 1}])
def test_wrong_options_are_refused(options):
    with pytest.raises(ValidationError):
        ScalselectOptions(**options)


def test_released_scores_are_those_of_the_full_decomposition_in_float32():
    found = leverage_released(signals(), ReleasedLeverageOptions())
    expected, k = oracle()
    np.testing.assert_allclose(found.score, expected, atol=1e-4)
    assert found.notes == [f"{k} directions of {ROWS - 1} rows"]
    lengths = leverage_released(signals(), ReleasedLeverageOptions(l2=True))
    assert np.nanmax(np.abs(lengths.score - found.score)) > 0.01
    nothing = signals_of("ab", matrices={SIGNAL: (np.array([-1, -1]), np.empty((0, 12), np.float32))})
    assert np.isnan(leverage_released(nothing, ReleasedLeverageOptions()).score).all()
