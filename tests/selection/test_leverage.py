"""Leverage from streamed moments: against the singular value decomposition, and against all rows at once."""

import io
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsel_platform.errors import SelectionError, StorageError
from vsel_platform.selection import leverage
from vsel_platform.selection.leverage import (
    Moments,
    leverage_basis,
    leverage_scores,
    merge,
    moments_of,
    unit_rows,
    without,
)

CENTRED = {"center": True, "standardize": False}


def rows_of(n, d, seed=0, dtype=np.float32, offset=0.5):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, d)) / np.sqrt(np.arange(1, d + 1)) + offset).astype(dtype)


def cut(rows, *ends):
    return [rows[a:b] for a, b in zip((0, *ends), (*ends, len(rows)), strict=True)]


def prepared(data, center, standardize, l2=False):
    data = data.astype(np.float64)
    deviation = data.std(axis=0)
    data = data - data.mean(axis=0) if center else data
    data = data / np.where(deviation == 0, 1, deviation) if standardize else data
    return data / np.linalg.norm(data, axis=1, keepdims=True) if l2 else data


def scores_by_svd(data, threshold, center, standardize, l2=False):
    left, values, _ = np.linalg.svd(prepared(data, center, standardize, l2), full_matrices=False)
    shares = np.cumsum(values**2) / (values**2).sum()
    k = int(np.searchsorted(shares, threshold)) + 1
    return (left[:, :k] ** 2).sum(axis=1), k


def relative(a, b):
    return max(
        np.abs(a.mean - b.mean).max() / np.abs(b.mean).max(),
        np.abs(a.scatter - b.scatter).max() / np.abs(b.scatter).max(),
    )


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_moments_are_the_mean_and_the_centred_scatter(dtype):
    data = rows_of(2500, 30, dtype=dtype)
    found = moments_of(cut(data, 7, 1500, 1500, 2300))
    wide = data.astype(np.float64)
    centred = wide - wide.mean(axis=0)
    assert found.n == 2500
    assert np.allclose(found.mean, wide.mean(axis=0), rtol=1e-13)
    assert np.abs(found.scatter - centred.T @ centred).max() < 1e-12 * np.abs(found.scatter).max()
    assert (found.scatter == found.scatter.T).all()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 1500), max_size=5), st.sampled_from([5, leverage.ROWS_PER_TILE, 1500]))
def test_where_blocks_end_does_not_change_a_bit(ends, n):
    data = rows_of(n, 6)
    ends = sorted(min(end, n) for end in ends)
    whole, parts = moments_of([data]), moments_of(cut(data, *ends))
    assert whole.to_bytes() == parts.to_bytes()
    basis = leverage_basis(whole, threshold=0.9, **CENTRED)
    assert leverage_scores([data], basis).tobytes() == leverage_scores(cut(data, *ends), basis).tobytes()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 12), st.floats(-1e3, 1e3))
def test_merging_and_removing_equal_moments_of_the_rows(n_a, n_b, d, offset):
    a, b = rows_of(n_a, d, 1, offset=offset), rows_of(n_b, d, 2, offset=-0.3)
    whole = moments_of([a, b])
    merged = merge(moments_of([a]), moments_of([b]))
    assert merged.n == n_a + n_b
    assert np.allclose(merged.mean, whole.mean, rtol=1e-12, atol=1e-12)
    size = np.abs(whole.scatter).max()
    assert np.abs(merged.scatter - whole.scatter).max() <= 1e-9 * size
    assert (merged.scatter == merged.scatter.T).all()
    rest = without(whole, moments_of([b]))
    assert rest.n == n_a
    assert np.abs(rest.mean - moments_of([a]).mean).max() < 1e-9 * (1 + abs(offset))
    assert np.abs(rest.scatter - moments_of([a]).scatter).max() <= 1e-9 * size + 1e-12
    assert (np.diagonal(rest.scatter) >= 0).all()


def test_adding_one_percent_of_rows_gives_the_scores_of_a_run_from_scratch():
    old, new = rows_of(3000, 40, 1), rows_of(30, 40, 2, offset=0.8)
    updated, scratch = merge(moments_of([old]), moments_of([new])), moments_of([old, new])
    assert relative(updated, scratch) < 1e-9
    found, expected = (
        leverage_scores([old, new], leverage_basis(m, threshold=0.9, **CENTRED)) for m in (updated, scratch)
    )
    assert np.abs(found - expected).max() < 1e-9


def test_large_means_do_not_swamp_small_variances():
    data = rows_of(4000, 8, offset=0.0).astype(np.float64)
    found = moments_of([data[:2000] + 1e6, data[2000:] + 1e6])
    plain = moments_of([data])
    assert np.abs(found.scatter - plain.scatter).max() < 1e-8 * np.abs(plain.scatter).max()


def test_moments_survive_their_bytes_exactly_and_without_pickles():
    moments = moments_of([rows_of(200, 33)])
    data = moments.to_bytes()
    again = Moments.from_bytes(data)
    assert (again.n, again.mean.tobytes(), again.scatter.tobytes()) == (
        200,
        moments.mean.tobytes(),
        moments.scatter.tobytes(),
    )
    assert again.to_bytes() == data
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        assert set(archive.files) == {"n", "mean", "upper"}


def archive(**arrays):
    target = io.BytesIO()
    np.savez(target, **arrays)
    return target.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no archive",
        archive(n=3, mean=np.zeros(2)),
        archive(n=0, mean=np.zeros(2), upper=np.zeros(3)),
        archive(n=3, mean=np.zeros(2), upper=np.zeros(4)),
        archive(n=3, mean=np.zeros(2, np.float32), upper=np.zeros(3)),
        archive(n=np.array([3], object), mean=np.zeros(2), upper=np.zeros(3)),
        moments_of([rows_of(20, 4)]).to_bytes()[:-40],
    ],
)
def test_other_bytes_are_refused(data):
    with pytest.raises(StorageError, match="moments"):
        Moments.from_bytes(data)


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("threshold", [0.3, 0.9, 0.999])
@pytest.mark.parametrize(("n", "d"), [(500, 24), (15, 40)])
def test_scores_equal_those_of_a_singular_value_decomposition(n, d, threshold, center, standardize):
    data = rows_of(n, d)
    basis = leverage_basis(moments_of([data]), threshold=threshold, center=center, standardize=standardize)
    scores = leverage_scores([data], basis)
    expected, k = scores_by_svd(data, threshold, center, standardize)
    assert basis.k == k
    assert np.abs(scores - expected).max() < 1e-9
    assert scores.sum() == pytest.approx(k, rel=1e-10)
    assert threshold <= basis.explained_energy <= 1
    values = np.linalg.svd(prepared(data, center, standardize), compute_uv=False) ** 2
    assert np.allclose(basis.eigenvalues, values[: len(basis.eigenvalues)], rtol=1e-8, atol=1e-10 * values[0])


@pytest.mark.parametrize("standardize", [True, False])
def test_rows_of_unit_length_take_one_more_pass(standardize):
    data = rows_of(1500, 16)
    moments = moments_of([data])
    rows = list(unit_rows(cut(data, 400), moments, center=True, standardize=standardize))
    assert np.allclose(np.concatenate(rows), prepared(data, True, standardize, True), atol=1e-12)
    basis = leverage_basis(moments_of(rows), threshold=0.9, center=False, standardize=False)
    expected, k = scores_by_svd(data, 0.9, True, standardize, True)
    assert basis.k == k
    assert np.abs(leverage_scores(rows, basis) - expected).max() < 1e-9


def test_a_row_at_the_mean_has_no_direction_and_no_leverage():
    data = np.array([[1, 0], [-1, 0], [0, 0]], np.float32)
    moments = moments_of([data])
    assert np.concatenate(list(unit_rows([data], moments, **CENTRED)))[2].tolist() == [0, 0]
    assert leverage_scores([data], leverage_basis(moments, threshold=0.9, **CENTRED)) == pytest.approx([0.5, 0.5, 0])


@pytest.mark.parametrize("position", [0, 3, 1023, 1024, 1500])
def test_equal_rows_have_equal_scores_wherever_they_stand(position):
    data = rows_of(1501, 45)
    data[position] = data[700]
    basis = leverage_basis(moments_of([data]), threshold=0.95, **CENTRED)
    scores = leverage_scores([data], basis)
    assert scores[position] == scores[700]
    assert leverage_scores([data[700:701]], basis)[0] == scores[700]


def test_directions_without_variance_never_count():
    narrow = rows_of(300, 5)
    data = np.concatenate([narrow, narrow @ np.ones((5, 3), np.float32), np.full((300, 2), 7, np.float32)], axis=1)
    for standardize in (False, True):
        moments = moments_of([data[:100], data[100:]])
        basis = leverage_basis(moments, threshold=1.0, center=True, standardize=standardize)
        expected, _ = scores_by_svd(narrow, 1.0, True, standardize)
        assert basis.k == len(basis.eigenvalues) in (5, 6)
        if basis.k == 5:
            assert np.abs(leverage_scores([data], basis) - expected).max() < 1e-6
        assert (basis.scale[8:] == 1).all()


def test_threshold_one_keeps_weak_directions_and_the_bound_of_the_rank():
    data = rows_of(200, 6, offset=0) * np.array([1, 1, 1, 1, 1, 1e-4], np.float32)
    assert leverage_basis(moments_of([data]), threshold=1.0, **CENTRED).k == 6
    assert leverage_basis(moments_of([data[:4]]), threshold=1.0, **CENTRED).k == 3
    assert leverage_basis(moments_of([data[:4]]), threshold=1.0, center=False, standardize=False).k == 4


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_named(bad):
    good = rows_of(2100, 5)
    basis = leverage_basis(moments_of([good]), threshold=0.9, **CENTRED)
    data = good.copy()
    data[2047, 3] = bad
    for compute in (moments_of, lambda blocks: leverage_scores(blocks, basis)):
        with pytest.raises(SelectionError, match="row 2047"):
            compute(cut(data, 1000))


def test_sums_that_overflow_are_refused():
    with pytest.raises(SelectionError, match="sum from row 0"):
        moments_of([np.full((3, 2), 1e308)])


@pytest.mark.parametrize(
    "blocks",
    [[], [np.zeros((0, 4))], [np.zeros(4)], [np.zeros((2, 4), np.int64)], [np.zeros((2, 4)), np.zeros((2, 5))]],
)
def test_what_is_no_sequence_of_float_matrices_is_refused(blocks):
    with pytest.raises(SelectionError):
        moments_of(blocks)


@pytest.mark.parametrize("threshold", [0, -0.1, 1.0001, float("nan")])
def test_thresholds_outside_the_unit_interval_are_refused(threshold):
    with pytest.raises(SelectionError, match="threshold"):
        leverage_basis(moments_of([rows_of(5, 3)]), threshold=threshold, **CENTRED)


def test_rows_that_cannot_be_told_apart_are_refused():
    with pytest.raises(SelectionError, match="two rows"):
        leverage_basis(moments_of([rows_of(1, 3)]), threshold=0.9, **CENTRED)
    with pytest.raises(SelectionError, match="all equal"):
        leverage_basis(moments_of([np.full((5, 3), 0.1, np.float32)]), threshold=0.9, **CENTRED)


def test_moments_and_bases_of_other_widths_are_refused():
    three, four = moments_of([rows_of(9, 3)]), moments_of([rows_of(8, 4)])
    for change in (merge, without):
        with pytest.raises(SelectionError, match="columns"):
            change(three, four)
    with pytest.raises(SelectionError, match="columns"):
        leverage_scores([rows_of(9, 4)], leverage_basis(three, threshold=0.9, **CENTRED))
    with pytest.raises(SelectionError, match="removed"):
        without(three, three)


def test_blocks_are_not_changed_and_not_kept():
    data = rows_of(1100, 7)
    before = data.copy()
    leverage_scores([data], leverage_basis(moments_of([data]), threshold=0.9, **CENTRED))
    list(unit_rows([data], moments_of([data]), **CENTRED))
    assert (data == before).all()


def test_a_stream_far_larger_than_its_tiles_stays_small():
    program = """
import resource, sys
import numpy as np
from scipy.linalg import eigh  # loaded before the first measurement
from vsel_platform.selection.leverage import leverage_basis, leverage_scores, moments_of
block = np.random.default_rng(0).standard_normal((5000, 256), dtype=np.float32)
moments_of([block])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
moments = moments_of(block + i for i in range(80))
basis = leverage_basis(moments, threshold=0.9, center=True, standardize=False)
scores = leverage_scores((block + i for i in range(80)), basis)
assert len(scores) == 400_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 60 * 1024  # KiB; the rows are 391 MiB
