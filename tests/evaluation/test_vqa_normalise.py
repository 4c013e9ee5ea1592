import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsel_platform.evaluation.vqa_normalise import (
    ACCURACIES,
    normalise_answer,
    normalised_accuracy,
    official_accuracy,
    one_line,
    replace_punctuation,
    replace_words,
    soft_accuracy,
    uploaded_accuracy,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Two Dogs.", "2 dogs"),
        ("the dog's", "dog 's"),
        ("dont", "don't"),
        ("3.5 m", "3.5 m"),
        ("none", "0"),
        ("a\tb", "b"),
        ("left-hand", "left hand"),
        ("", ""),
    ],
)
def test_normalised_answers(text, expected):
    assert normalise_answer(text) == expected


def test_a_mark_goes_everywhere_if_it_touches_a_blank_once():
    assert replace_punctuation("a-b -c") == "ab c"
    assert replace_punctuation("a-b/c d") == "a b c d"
    assert replace_punctuation("1,000/2") == "10002"


def test_only_the_first_32_periods_go():
    assert replace_punctuation("x." * 40) == "x" * 32 + "x." * 8


def test_blanks_and_words():
    assert one_line(" a\nb\tc ") == "a b c"
    assert replace_words("The  ten  Im") == "10 im"


@pytest.mark.parametrize(("matches", "expected"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_accuracy_leaves_each_annotator_out_once(matches, expected):
    assert soft_accuracy("yes", ["yes"] * matches + ["no"] * (10 - matches)) == pytest.approx(expected)


def test_official_accuracy_normalises_only_where_annotators_differ():
    assert official_accuracy("yes", ["Yes."] * 10) == 0
    assert official_accuracy("YES.", ["Yes."] * 10) == 1
    assert official_accuracy("yes", ["Yes."] * 9 + ["no"]) == 1
    assert official_accuracy("a\ncat", ["cat"] * 9 + ["dog"]) == 1


def test_uploads_are_normalised_before_the_official_evaluation():
    assert uploaded_accuracy("Yes.", ["yes"] * 10) == 1
    assert uploaded_accuracy("Yes.", ["Yes."] * 10) == 0
    assert normalised_accuracy("Yes.", ["yes,"] * 10) == 1


@given(st.lists(st.text(max_size=8), min_size=1, max_size=10), st.text(max_size=8), st.randoms())
def test_accuracies_are_shares_and_independent_of_the_order_of_annotators(answers, text, random):
    shuffled = random.sample(answers, len(answers))
    for accuracy in ACCURACIES.values():
        assert 0 <= accuracy(text, answers) <= 1
        assert accuracy(text, answers) == pytest.approx(accuracy(text, shuffled))
