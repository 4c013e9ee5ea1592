"""Shares of a budget are exact, capped, and the same in any order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsel_platform.selection.budgets import (
    largest_remainder,
    released_llava_budgets,
    released_vision_flan_budgets,
    softmax_weights,
    water_filling,
)

WEIGHTS = st.lists(st.floats(0, 1e6, allow_nan=False), min_size=1, max_size=30)


def test_sums_are_exact_in_ten_thousand_random_cases():
    rng = np.random.default_rng(0)
    for _ in range(10_000):
        n = int(rng.integers(1, 40))
        weights = rng.choice([0.0, 1e-12, 1.0, 1e9], n) * rng.random(n)
        total = int(rng.integers(0, 5_000))
        capacity = {f"t{i}": int(c) for i, c in enumerate(rng.integers(0, 300, n))}
        shares = largest_remainder(weights.tolist(), total)
        assert sum(shares) == total
        assert min(shares) >= 0
        filled = water_filling(dict(zip(capacity, weights.tolist(), strict=True)), capacity, total)
        assert sum(filled.values()) == min(total, sum(capacity.values()))
        assert all(0 <= filled[key] <= capacity[key] for key in capacity)


@given(WEIGHTS, st.integers(0, 10_000))
def test_a_share_is_within_one_of_proportional(weights, total):
    shares = largest_remainder(weights, total)
    if sum(weights) > 0:
        exact = np.asarray(weights) / sum(weights) * total
        assert np.abs(np.asarray(shares) - exact).max() < 1 + 1e-6 * total


@settings(max_examples=50)
@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(0, 50), min_size=1), st.randoms())
def test_order_of_keys_does_not_matter(capacity, random):
    weights = {key: float(len(key)) for key in capacity}
    keys = list(capacity)
    random.shuffle(keys)
    shuffled = {key: capacity[key] for key in keys}
    assert water_filling(weights, capacity, 60) == water_filling(weights, shuffled, 60)


def test_full_tasks_pass_their_surplus_on_in_proportion():
    filled = water_filling({"a": 0.8, "b": 0.1, "c": 0.1}, {"a": 10, "b": 100, "c": 100}, 50)
    assert filled == {"a": 10, "b": 20, "c": 20}


def test_ties_go_to_the_lower_index():
    assert largest_remainder([1, 1, 1], 2) == [1, 1, 0]
    assert largest_remainder([0, 0], 3) == [2, 1]
    assert largest_remainder([], 3) == []


@pytest.mark.parametrize("weights", [[-1.0, 2.0], [float("nan"), 1.0], [float("inf")]])
def test_bad_weights_are_refused(weights):
    with pytest.raises(ValueError, match="finite"):
        largest_remainder(weights, 3)


def test_softmax_is_a_distribution_that_prefers_low_difficulty():
    weights = softmax_weights([0.2, 0.4, 0.9], 0.5)
    assert weights.sum() == pytest.approx(1)
    assert weights[0] > weights[1] > weights[2]
    assert softmax_weights([1e9, 1e9 + 1], 1.0)[0] == pytest.approx(1 / (1 + np.exp(-1)))


def test_equal_remainders_are_found_equal():
    assert largest_remainder([1, 4, 1], 7) == [1, 5, 1]
    assert largest_remainder([7.0, 3.0], 5) == [4, 1], "3.5 and 1.5: the lower index"
    assert largest_remainder([0.1] * 10, 25) == [3] * 5 + [2] * 5


def test_released_llava_rule_gives_the_rest_to_the_most_important():
    budgets = released_llava_budgets([0.5, 0.2, 0.9], 10)
    weights = softmax_weights([0.5, 0.2, 0.9], 1 / np.sqrt(3))
    floors = (weights * 10).astype(int).tolist()
    assert sum(budgets) == 10
    assert [budget - floor for budget, floor in zip(budgets, floors, strict=True)] == [0, 10 - sum(floors), 0]


def test_released_vision_flan_rule_caps_and_passes_on_in_order():
    found = released_vision_flan_budgets({"b": 0.1, "a": 2.0, "c": 2.0}, {"a": 9, "b": 2, "c": 9}, 10, 0.3)
    assert found == {"b": 2, "a": 5, "c": 3}, "the rest of 1 goes to a, the 7 that b cannot take go round"


@pytest.mark.parametrize("difficulty", [[0.5, float("nan")], [float("inf")]])
def test_released_rules_refuse_an_unknown_difficulty(difficulty):
    with pytest.raises(ValueError, match="no difficulty"):
        released_llava_budgets(difficulty, 5)
    named = {str(i): value for i, value in enumerate(difficulty)}
    with pytest.raises(ValueError, match="no difficulty"):
        released_vision_flan_budgets(named, dict.fromkeys(named, 9), 5, 1.0)
