import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsel_platform.reports.markdown import Long, cell, table


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (True, "yes"), (12345, "12,345"), (0.12345, "0.123"), (98765.4, "98,765"), ("a b", "a b")],
)
def test_values_are_readable(value, text):
    assert cell(value) == text


def test_markup_is_text():
    assert cell("<img src=x> | `a` [b](c)") == r"\<img src=x\> \| \`a\` \[b\](c)"


def test_underlines_inside_words_are_left_alone():
    assert cell("presel_15_s2 _x_ a\\_b __init__") == r"presel_15_s2 \_x\_ a\\\_b \_\_init\_\_"


@given(st.lists(st.lists(st.text(max_size=20), min_size=2, max_size=2), min_size=1, max_size=5))
def test_every_row_is_one_line_with_its_columns(rows):
    lines = table(["one", "two"], rows).split("\n")
    assert len(lines) == len(rows) + 2
    for line in lines:
        unescaped = line.replace("\\\\", "").replace("\\|", "")
        assert unescaped.count("|") == 3


def test_numbers_are_aligned_to_the_right():
    assert table(["task", "rows"], [("a", 1)]).split("\n")[1] == "| --- | ---: |"


def test_a_table_without_rows_is_its_head():
    assert table(["task"], []) == "| task |\n| --- |"


def test_a_long_text_is_not_cut_and_still_no_markup():
    assert cell(Long("a|b " * 40)) == ("a\\|b " * 40).strip()
