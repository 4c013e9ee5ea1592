"""Edges of the released behaviour that the recorded cases may not show."""

import math

import numpy as np
import pytest

from vsel_platform.methods.presel_released import (
    released_relevance,
    released_rounds,
    released_task_difficulties,
    released_typicality,
    rows_of_round,
)


def test_later_entries_without_question_win_and_all_with_question_count():
    with_question = [{"unique_idx": 1, "loss": 2.0}, {"unique_idx": 1, "loss": 4.0}, {"unique_idx": 9, "loss": 1.0}]
    without = [{"unique_idx": 1, "loss": 100.0}, {"unique_idx": 1, "loss": 4.0}]
    assert released_relevance(with_question, without) == [(1, 0.5), (1, 1.0)]


def test_one_missing_loss_spoils_its_task_and_a_task_without_rows_has_none():
    found = released_task_difficulties([(1, 0.5), (2, math.nan), (3, 0.7)], [1, 2, 3], [[1, 3], [1, 2], [7]])
    assert found[0] == (pytest.approx(0.6), 2)
    assert math.isnan(found[1][0])
    assert found[1][1] == 2
    assert math.isnan(found[2][0])
    assert found[2][1] == 0


def test_rounds_grow_by_five_percent_of_all_rows():
    assert [rows_of_round(1000, number) for number in (1, 2, 3)] == [0, 50, 100]
    assert rows_of_round(3, 2) == 1


def test_top_up_carries_its_state_from_round_to_round():
    dataset, reference = list(range(100)), [3, 1]
    together = released_rounds(dataset, reference, [[5], [5, 6]], [10, 20])
    alone = released_rounds(dataset, reference, [[5, 6]], [20])
    assert [len(found) for found in together] == [12, 22]
    assert together[1] != alone[0]
    assert together[0][:2] == [3, 1]
    assert together[0][2:] == sorted(together[0][2:])


def test_reference_rows_are_no_neighbours():
    vectors = np.array([[1, 0], [1, 0], [0.6, 0.8], [0, 1]], np.float32)
    labels = np.array([0, 0, 0, 1], np.int32)
    found = released_typicality(vectors, labels, np.array([True, False, False, False]))
    assert found[1] == found[2] == pytest.approx(0.6)
    assert math.isnan(found[0])
    assert math.isnan(found[3])
