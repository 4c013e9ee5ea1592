"""Numbers that belong to ids: uniform, seeded, the same in any order and for ever."""

import numpy as np

from vsel_platform.selection.stable_hash import stable_uniform


def test_values_are_fixed_for_ever():
    found = stable_uniform(12345, ["a", "b"])
    assert found.tolist() == stable_uniform(12345, ["b", "a"])[::-1].tolist()
    assert found[0] == 0.5799018546855109
    assert stable_uniform(1, ["a"])[0] != found[0]


def test_values_are_uniform():
    values = stable_uniform(0, [str(i) for i in range(20_000)])
    assert values.min() >= 0
    assert values.max() < 1
    counts, _ = np.histogram(values, bins=20, range=(0, 1))
    assert abs(counts - 1000).max() < 150


def test_no_ids_give_no_values():
    assert stable_uniform(0, []).shape == (0,)


def test_draws_of_different_purposes_are_independent():
    ids = [str(i) for i in range(5_000)]
    plain, other = stable_uniform(1, ids), stable_uniform(1, ids, "other")
    assert abs(np.corrcoef(plain, other)[0, 1]) < 0.05
    assert other.tolist() == stable_uniform(1, ids, "other").tolist()
