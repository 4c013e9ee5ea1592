"""LLaVA's sampler: its faults stay visible."""

import numpy as np
import pytest

from vsel_platform.errors import DataError
from vsel_platform.training.samplers_released import (
    released_even_chunks,
    released_lengths,
    released_modality_lengths,
    released_modality_order,
)


def order(lengths, batch_size=2, world_size=1, permutation=range):
    return released_modality_order(
        lengths, batch_size=batch_size, world_size=world_size, permutation=lambda n: list(permutation(n))
    )


def test_full_last_steps_of_both_modalities_are_set_aside():
    assert order([1, 2, 3, 4, -1, -2, -3, -4]) == [1, 0, 5, 4, 2, 3, 6, 7]


def test_text_alone_is_sorted_the_wrong_way_round():
    assert order([-4, -1, -3, -2]) == [1, 0, 3, 2]
    assert order([4, 1, 3, 2]) == [0, 1, 2, 3]


def test_every_row_comes_once():
    rng = np.random.default_rng(0)
    lengths = [int(n) for n in rng.integers(-50, 50, 37) if n]
    assert sorted(order(lengths, 3, 2, rng.permutation)) == list(range(len(lengths)))


def test_a_megabatch_that_does_not_divide_is_dealt_by_turns():
    assert released_even_chunks([4, 3, 2], [1, 1, 1, 1, 1], 2) == [[4, 2], [3]]
    assert released_even_chunks([0, 1, 2, 3], [9, 5, 4, 1], 2) == [[0, 3], [1, 2]]


def test_a_length_of_zero_is_an_error():
    with pytest.raises(DataError, match="zero length"):
        order([1, 0, 2])


def test_lengths_are_words_and_an_image_counts_or_gives_the_sign():
    turns = [{"value": "what  is\nit"}, {"value": "a dog"}]
    entries = [{"image": "a", "conversations": turns}, {"conversations": turns}]
    assert released_lengths(entries) == [133, 5]
    assert released_modality_lengths(entries) == [5, -5]
