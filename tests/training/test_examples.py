"""Which rows can be learned from."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_llava import conversation

from vsel_platform.errors import DataError, ModelError
from vsel_platform.signals.losses import LossRow
from vsel_platform.training.examples import usable_rows


def rows(*names):
    return [LossRow(name, conversation("hi", "there")) for name in names]


def length_of(row):
    """Tokens and targets by the row's name: 'u' cannot be read, 'n' has nothing to learn."""
    if row.sample_id.startswith("u"):
        raise DataError(f"{row.sample_id} has a strange role")
    return 10 + int(row.sample_id[1:]), 0 if row.sample_id.startswith("n") else 3


def test_rows_are_sorted_and_the_others_left_out_with_their_reason():
    found = usable_rows(rows("y2", "n1", "y1", "u1", "u2"), length_of, max_unusable=0.6)
    assert [row.sample_id for row in found.rows] == ["y1", "y2"]
    assert found.lengths == [11, 12]
    assert [(own.content_id, own.reason) for own in found.left_out] == [
        ("n1", "nothing_to_learn"), ("u1", "unreadable"), ("u2", "unreadable")
    ]  # fmt: skip


def test_no_row_left_is_an_error():
    with pytest.raises(ModelError, match=r"none of 2 rows has an answer .*; the first, n1: no answer within"):
        usable_rows(rows("n1", "u1"), length_of, max_unusable=1.0)
    with pytest.raises(ModelError, match="none of 0 rows"):
        usable_rows([], length_of, max_unusable=1.0)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (("n1", "n2"), "nothing_to_learn, such as row n1"),
        (("u1", "u2"), "unreadable, such as row u1: u1 has a strange"),
    ],
)
def test_too_many_rows_that_cannot_be_learned_from_are_refused_with_the_first_of_them(bad, why):
    names = rows(*bad, "y1", "y2")
    with pytest.raises(ModelError, match=rf"2 of 4 rows .* \(49\.0%\)\. Most often \(2\): {why}"):
        usable_rows(names, length_of, max_unusable=0.49)
    assert len(usable_rows(names, length_of, max_unusable=0.5).left_out) == 2


@given(st.permutations(["y1", "y2", "y3", "n4", "u5"]))
def test_the_order_of_rows_does_not_matter(order):
    assert usable_rows(rows(*order), length_of, 1.0) == usable_rows(rows("y1", "y2", "y3", "n4", "u5"), length_of, 1.0)
