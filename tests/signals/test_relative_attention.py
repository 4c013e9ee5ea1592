"""Relative attention maps and the agreement of two models."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vsel_platform.errors import SelectionError
from vsel_platform.signals.relative_attention import (
    aggregate_maps,
    attention_iou,
    chunk_ious,
    relative_maps,
    step_attention,
    token_iou,
    top_tokens,
)

WEIGHTS = st.floats(0, 1, width=32)
VECTORS = hnp.arrays(np.float32, st.shared(st.integers(1, 40), key="tokens"), elements=WEIGHTS)


def test_step_attention_is_the_mean_over_heads_and_layers_of_the_last_query():
    layers = [np.zeros((2, 3, 6)), np.zeros((2, 1, 6))]
    layers[0][0, -1, 2:4] = 0.4
    layers[1][1, -1, 3:5] = 0.8
    found = step_attention(layers, (2, 5))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [0.1, 0.3, 0.2], rtol=1e-6)


def test_half_precision_is_accumulated_in_float32():
    layer = np.full((2048, 1, 2), 1e-3, np.float16)
    exact = float(np.float16(1e-3))
    np.testing.assert_allclose(step_attention([layer] * 3, (0, 2)), exact, rtol=1e-6)


def test_the_last_step_is_the_denominator():
    steps = np.array([[0.2, 0.2, 0.0], [0.1, 0.3, 0.0], [0.1, 0.2, 0.4]])
    found = relative_maps(steps)
    np.testing.assert_allclose(found, [[2 / 3, 1 / 3, 0], [0.4, 0.6, 0]], rtol=1e-6)
    assert found.dtype == np.float32


def test_an_answer_of_one_step_has_no_map():
    for steps in (np.ones((1, 4)), np.empty((0, 4))):
        assert relative_maps(steps).shape == (0, 4)
    assert aggregate_maps(relative_maps(np.ones((1, 4)))) is None
    with pytest.raises(SelectionError, match=r"expected \[steps, vision tokens\]"):
        relative_maps(np.ones(4))


@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=WEIGHTS))
def test_maps_are_distributions_or_zero(steps):
    maps = relative_maps(steps)
    assert maps.shape == (len(steps) - 1, steps.shape[1])
    sums = maps.sum(axis=1)
    assert (np.isclose(sums, 1, atol=1e-5) | (sums == 0)).all()
    total = aggregate_maps(maps)
    assert total is None or total.sum() == 0 or math.isclose(total.sum(), 1, abs_tol=1e-5)


def test_a_map_that_is_not_finite_gives_no_image_score():
    assert aggregate_maps(np.array([[0.5, 0.5], [np.nan, 1.0]])) is None
    assert aggregate_maps(np.zeros((2, 3))).tolist() == [0, 0, 0]
    assert aggregate_maps([]) is None


@given(VECTORS, st.integers(1, 100))
def test_top_tokens_are_the_largest_and_ties_go_by_index(vector, percent):
    tokens = top_tokens(vector, percent)
    assert len(tokens) == max(1, len(vector) * percent // 100)
    expected = sorted(range(len(vector)), key=lambda i: (-vector[i], i))[: len(tokens)]
    assert tokens.tolist() == sorted(expected)


@given(VECTORS, VECTORS)
def test_iou_is_symmetric_and_one_for_equal_maps(first, second):
    assert 0 <= attention_iou(first, second) == attention_iou(second, first) <= 1
    assert attention_iou(first, first) == 1


def test_token_sets():
    assert token_iou([1, 2, 3], {3, 4}) == 0.25
    assert math.isnan(token_iou([], []))


def test_maps_of_different_grids_are_refused():
    with pytest.raises(SelectionError, match="576 and 16 vision tokens"):
        attention_iou(np.ones(576), np.ones(16))


def test_samples_without_a_map_in_both_models_have_no_iou():
    def chunk(**maps):
        return [{"sample_id": int(name[1:]), "relative_attention_maps": value} for name, value in maps.items()]

    some = [[0.6, 0.3, 0.1, 0.0]]
    first = {"c1": chunk(s1=some, s2=some, s3=[]), "c2": chunk(s9=some)}
    second = {"c1": chunk(s1=[[0.0, 0.1, 0.3, 0.6]], s3=some, s4=some), "c3": chunk(s9=some)}
    assert chunk_ious(first, second) == {1: 0.0}
    assert chunk_ious(first, {}) == {}
