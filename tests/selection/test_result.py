"""Rounds are nested cuts of one selection."""

import pytest

from vsel_platform.errors import SelectionError
from vsel_platform.selection.result import SelectedRow, SelectionResult, split_rounds


def selection(n_reference, n):
    rows = [
        SelectedRow(f"r{i}", i + 1, f"t{i % 2}", "image", "reference" if i < n_reference else "typical")
        for i in range(n)
    ]
    return SelectionResult(rows, [])


def test_the_first_round_is_the_reference_and_the_others_are_equal():
    rounds = split_rounds(selection(10, 41), 4)
    assert [(r.number, r.rows) for r in rounds] == [(1, 10), (2, 21), (3, 31), (4, 41)]
    assert rounds[0].added == {"t0": 5, "t1": 5}
    assert sum(sum(r.added.values()) for r in rounds) == 41


@pytest.mark.parametrize(("n_reference", "n_rounds", "expected"), [(10, 1, [30]), (0, 3, [10, 20, 30])])
def test_without_a_reference_round(n_reference, n_rounds, expected):
    assert [r.rows for r in split_rounds(selection(n_reference, 30), n_rounds)] == expected


def test_no_rounds_are_refused():
    with pytest.raises(SelectionError, match="at least 1"):
        split_rounds(selection(1, 2), 0)
