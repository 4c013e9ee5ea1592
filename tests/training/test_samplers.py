"""Which rows make a step."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsel_platform.errors import ConfigError
from vsel_platform.training.samplers import balanced_parts, grouped_steps

rows = st.lists(st.tuples(st.integers(0, 500), st.sampled_from(["image", "text", "both"])), min_size=1, max_size=80)


def steps_of(pairs, **changes):
    lengths, groups = zip(*pairs, strict=True)
    options = {"epochs": 1.0, "batch_rows": 4, "seed": 1, "window_steps": 3}
    return grouped_steps(lengths, groups, **(options | changes))


@given(rows, st.integers(1, 9), st.integers(0, 3))
def test_an_epoch_takes_every_row_once_in_whole_steps_of_one_group(pairs, batch_rows, seed):
    steps = steps_of(pairs, batch_rows=batch_rows, seed=seed)
    assert sorted(i for step in steps for i in step) == list(range(len(pairs)))
    assert sum(len(step) != batch_rows for step in steps) <= 1
    counts = {group: [g for _, g in pairs].count(group) for _, group in pairs}
    pure = sum(len({pairs[i][1] for i in step}) == 1 and len(step) == batch_rows for step in steps)
    assert pure >= sum(count // batch_rows for count in counts.values())


@given(rows, st.floats(0.05, 3.5))
def test_a_fraction_of_an_epoch_is_the_beginning_of_it(pairs, epochs):
    steps = steps_of(pairs, epochs=epochs)
    assert sum(map(len, steps)) == max(1, round(epochs * len(pairs)))
    longer = steps_of(pairs, epochs=np.ceil(epochs) + 1)
    assert [step[: len(own)] for step, own in zip(longer, steps, strict=False)] == steps


@pytest.mark.parametrize("groups", [None, [True] * 40, [False] * 40])
def test_one_modality_alone_is_length_grouping(groups):
    lengths = list(range(40))
    steps = grouped_steps(lengths, groups, epochs=1, batch_rows=5, seed=3)
    assert sorted(map(sorted, steps)) == [list(range(start, start + 5)) for start in range(0, 40, 5)]


def test_epochs_and_seeds_have_orders_of_their_own_and_equal_ones_the_same():
    pairs = [(i % 7, "image" if i % 3 else "text") for i in range(60)]
    both = steps_of(pairs, epochs=2)
    assert both[:15] != both[15:]
    assert both == steps_of(pairs, epochs=2)
    assert both[:15] == steps_of(pairs)
    assert both[:15] != steps_of(pairs, seed=2)


def test_the_last_step_is_not_always_the_mixed_one():
    pairs = [(i, "image" if i < 30 else "text") for i in range(60)]
    mixed = [
        [len({pairs[i][1] for i in step}) > 1 for step in steps_of(pairs, seed=seed)].index(True) for seed in range(20)
    ]
    assert len(set(mixed)) > 5


def test_padding_shrinks():
    rng = np.random.default_rng(0)
    lengths = rng.lognormal(5, 0.8, 2000).astype(int).tolist()

    def padded(steps):
        return sum(len(step) * max(lengths[i] for i in step) for step in steps)

    drawn = rng.permutation(2000).reshape(-1, 16).tolist()
    grouped = padded(grouped_steps(lengths, epochs=1, batch_rows=16, seed=0))
    assert grouped < 0.5 * padded(drawn)
    assert grouped < 1.2 * sum(lengths)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=40), st.integers(1, 6))
def test_parts_have_equal_numbers_of_rows_and_nearly_equal_sums(lengths, parts):
    found = balanced_parts(range(len(lengths)), lengths, parts)
    assert sorted(i for part in found for i in part) == list(range(len(lengths)))
    sizes = [len(part) for part in found]
    assert max(sizes) - min(sizes) <= 1
    if len(lengths) % parts == 0:
        sums = [sum(lengths[i] for i in part) for part in found]
        assert max(sums) - min(sums) <= max(lengths)


@pytest.mark.parametrize("change", [{"epochs": 0.0}, {"batch_rows": 0}, {"window_steps": 0}, {"epochs": float("nan")}])
def test_arguments_that_make_no_sense_are_refused(change):
    with pytest.raises(ConfigError, match="no steps can be made"):
        steps_of([(1, "image")], **change)


def test_groups_of_other_rows_and_no_parts_are_refused():
    with pytest.raises(ConfigError, match="2 groups for 1 rows"):
        grouped_steps([1], ["a", "b"], epochs=1, batch_rows=1, seed=0)
    with pytest.raises(ConfigError, match="0 parts"):
        balanced_parts([0], [1], 0)
