"""Order of rows and learning rates."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsel_platform.training.schedule import epoch_means, learning_rate_factor, step_batches


@given(st.integers(1, 40), st.floats(0.1, 4), st.integers(1, 10), st.integers(0, 5))
def test_every_row_is_taken_as_often_as_any_other_up_to_one(n_rows, epochs, batch_rows, seed):
    steps = step_batches(n_rows, epochs=epochs, batch_rows=batch_rows, seed=seed)
    counts = Counter(row for step in steps for row in step)
    assert sum(counts.values()) == max(1, round(epochs * n_rows))
    assert max(counts.values()) - min(counts[row] for row in range(n_rows)) <= 1
    assert all(len(step) == batch_rows for step in steps[:-1])
    assert 1 <= len(steps[-1]) <= batch_rows


def test_the_seed_gives_the_order():
    def order(seed):
        return step_batches(50, epochs=2, batch_rows=8, seed=seed)

    assert order(1) == order(1) != order(2)


def test_epochs_are_permuted_anew():
    (first,), (second,) = (step_batches(50, epochs=2, batch_rows=50, seed=0)[i : i + 1] for i in (0, 1))
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second


def factors(steps, warmup_fraction):
    return [learning_rate_factor(s, steps=steps, warmup_fraction=warmup_fraction) for s in range(steps)]


def test_warm_up_rises_to_one_and_the_cosine_falls():
    found = factors(100, 0.1)
    assert found[:10] == pytest.approx([0.1 * i for i in range(1, 11)])
    assert found[10] == 1.0
    assert found[55] == pytest.approx(0.5)
    assert all(a > b for a, b in pairwise(found[10:]))
    assert 0 < found[-1] < 0.001


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
@pytest.mark.parametrize("warmup_fraction", [0.0, 0.03, 0.5, 0.99])
def test_no_step_is_wasted(steps, warmup_fraction):
    assert all(0 < factor <= 1 for factor in factors(steps, warmup_fraction))


def test_without_warm_up_the_first_step_has_the_full_rate():
    assert factors(10, 0.0)[0] == 1.0


@pytest.mark.parametrize(
    ("losses", "epochs", "means"),
    [([4.0, 2.0, 1.0, 0.5], 2, (3.0, 0.75)), ([3.0, 1.0], 0.5, (2.0, 2.0)), ([5.0, 4.0, 3.0], 2, (4.5, 3.5))],
)
def test_epoch_means_are_of_the_steps_of_an_epoch(losses, epochs, means):
    assert epoch_means(losses, epochs) == means


@given(st.lists(st.floats(0, 10), min_size=1, max_size=50), st.floats(0.1, 60))
def test_epoch_means_lie_within_the_losses(losses, epochs):
    for mean in epoch_means(losses, epochs):
        assert min(losses) - 1e-9 <= mean <= max(losses) + 1e-9
