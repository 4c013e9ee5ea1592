"""Attended vision tokens: the smallest set that holds the share, whatever the unit, with ties by position."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsel_platform.errors import ModelError
from vsel_platform.signals.attended_vision import attended_mean, attended_positions

masses = st.lists(st.integers(0, 1000), min_size=1, max_size=60).map(lambda v: np.array(v, np.float32))


def test_largest_come_first_until_the_share_is_reached():
    mass = np.array([1, 5, 2, 2], np.float32)
    assert attended_positions(mass, 0.5).tolist() == [1]
    assert attended_positions(mass, 0.51).tolist() == [1, 2]
    assert attended_positions(mass, 0.9).tolist() == [1, 2, 3]
    assert attended_positions(mass, 0.91).tolist() == [1, 2, 3, 0]


def test_ties_go_by_position():
    assert attended_positions(np.full(10, 0.25, np.float32), 0.5).tolist() == [0, 1, 2, 3, 4]


def test_without_any_attention_every_token_counts():
    assert attended_positions(np.zeros(5, np.float32), 0.3).tolist() == [0, 1, 2, 3, 4]


def test_threshold_one_takes_exactly_the_tokens_with_attention():
    mass = np.random.default_rng(0).random(4000).astype(np.float32)
    mass[100:200] = 0
    found = attended_positions(mass, 1.0)
    assert set(found.tolist()) == set(np.flatnonzero(mass).tolist())


@settings(max_examples=100, deadline=None)
@given(masses, st.floats(0.01, 1), st.sampled_from([0.125, 4.0]))
def test_the_set_is_minimal_and_does_not_depend_on_the_unit(mass, threshold, unit):
    found = attended_positions(mass, threshold)
    assert len(set(found.tolist())) == len(found)
    assert found.dtype == np.int64
    assert np.array_equal(found, attended_positions(mass * np.float32(unit), threshold))
    total = mass.sum(dtype=np.float64)
    if total:
        assert mass[found].sum(dtype=np.float64) >= threshold * total
        assert mass[found[:-1]].sum(dtype=np.float64) < threshold * total


@settings(max_examples=50, deadline=None)
@given(masses, st.floats(0.01, 1))
def test_a_higher_share_only_adds_tokens(mass, threshold):
    found, more = attended_positions(mass, threshold / 2), attended_positions(mass, threshold)
    assert not mass.any() or more[: len(found)].tolist() == found.tolist()


def test_mean_of_the_attended_states():
    hidden = np.arange(12, dtype=np.float32).reshape(4, 3)
    vector, count = attended_mean(hidden, np.array([0, 3, 1, 0], np.float32), 0.9)
    assert count == 2
    assert vector.dtype == np.float32
    assert vector.tolist() == [4.5, 5.5, 6.5]


def test_half_precision_states_do_not_overflow_in_the_sum():
    hidden = np.full((100, 2), 60_000, np.float16)
    vector, _ = attended_mean(hidden, np.ones(100, np.float32), 1.0)
    assert vector.tolist() == [float(np.float16(60_000))] * 2


@pytest.mark.parametrize("mass", [[], [[1.0]], [1.0, np.nan], [np.inf], [-1.0, 2.0]])
def test_masses_that_are_none_are_refused(mass):
    with pytest.raises(ModelError, match="attended vision"):
        attended_positions(np.array(mass, np.float32), 0.9)


@pytest.mark.parametrize("threshold", [0, 1.5, float("nan")])
def test_thresholds_outside_the_unit_interval_are_refused(threshold):
    with pytest.raises(ModelError, match="threshold"):
        attended_positions(np.ones(3, np.float32), threshold)


def test_states_and_masses_must_fit_together():
    with pytest.raises(ModelError, match="hidden states"):
        attended_mean(np.zeros((3, 2), np.float32), np.ones(4, np.float32), 0.9)
