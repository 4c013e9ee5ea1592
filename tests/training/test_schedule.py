"""Order of rows and learning rates."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsel_platform.config_training import LoraSettings
from vsel_platform.training.schedule import epoch_means, learning_rate_factor, step_plan

ORDERS = ("random", "length", "modality")


def planned(lengths, *, world=1, has_image=None, **options):
    settings = LoraSettings(**{"batch_rows": 8, "seed": 1, **options})
    return step_plan(lengths, has_image or [False] * len(lengths), settings, world=world)


def rows_of(plan):
    return [[row for own in step for row, _ in own] for step in plan.steps]


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=40),
    st.floats(0.1, 4),
    st.integers(1, 10),
    st.sampled_from(ORDERS),
    st.integers(1, 3),
)
def test_every_row_is_taken_as_often_as_any_other_up_to_one(lengths, epochs, batch_rows, order, world):
    has_image = [length % 3 == 0 for length in lengths]
    plan = planned(lengths, has_image=has_image, epochs=epochs, batch_rows=batch_rows, order=order, world=world)
    counts = Counter(row for step in rows_of(plan) for row in step)
    assert sum(counts.values()) == max(1, round(epochs * len(lengths)))
    assert max(counts.values()) - min(counts[row] for row in range(len(lengths))) <= 1
    assert all(len(step) <= batch_rows for step in rows_of(plan))
    assert all(len(step) == world for step in plan.steps)
    assert plan.rows == set(counts)


@given(st.integers(1, 40), st.integers(1, 10), st.sampled_from(ORDERS), st.integers(1, 3))
def test_every_epoch_takes_every_row_once(n_rows, batch_rows, order, world):
    plan = planned([1] * n_rows, epochs=3, batch_rows=batch_rows, order=order, world=world)
    taken = Counter(pair for step in plan.steps for own in step for pair in own)
    assert taken == {(row, epoch): 1 for row in range(n_rows) for epoch in range(3)}


@given(st.lists(st.integers(1, 50), min_size=2, max_size=40), st.sampled_from(ORDERS))
def test_steps_have_the_same_rows_whatever_the_number_of_processes(lengths, order):
    one, three = (rows_of(planned(lengths, order=order, world=world)) for world in (1, 3))
    assert [sorted(step) for step in one] == [sorted(step) for step in three]


def test_the_seed_gives_the_order():
    for order in ORDERS:
        one, same, other = (planned(list(range(1, 51)), epochs=2, order=order, seed=seed) for seed in (1, 1, 2))
        assert one == same != other


def test_rows_of_a_step_are_of_similar_length():
    lengths = [int(n) for n in np.random.default_rng(0).integers(1, 1000, 400)]

    def padding(order):
        return sum(max(lengths[i] for i in step) * len(step) for step in rows_of(planned(lengths, order=order)))

    assert padding("length") < 1.1 * sum(lengths) < padding("random")


def test_modality_parts_rows_with_and_without_image():
    has_image = [i % 2 == 0 for i in range(32)]
    for step in rows_of(planned([5] * 32, has_image=has_image, order="modality")):
        assert len({has_image[row] for row in step}) == 1


def factors(steps, warmup_fraction):
    return [learning_rate_factor(s, steps=steps, warmup_fraction=warmup_fraction) for s in range(steps)]


def test_warm_up_rises_to_one_and_the_cosine_falls():
    found = factors(100, 0.1)
    assert found[:10] == pytest.approx([0.1 * i for i in range(1, 11)])
    assert found[10] == 1.0
    assert found[55] == pytest.approx(0.5)
    assert all(a > b for a, b in pairwise(found[10:]))
    assert 0 < found[-1] < 0.001


def test_the_rate_falls_on_a_line_or_stays():
    forms = {form: [learning_rate_factor(s, steps=4, warmup_fraction=0.0, form=form) for s in range(4)]
             for form in ("linear", "constant")}  # fmt: skip
    assert forms == {"linear": [1.0, 0.75, 0.5, 0.25], "constant": [1.0] * 4}


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
