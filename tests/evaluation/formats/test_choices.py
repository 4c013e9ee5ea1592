import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsel_platform.evaluation.formats.choices import (
    LETTERS,
    lettered,
    match_option,
    options_line,
    read_option,
    read_yes_no,
    user_turn,
)

ANIMALS = ("cat", "dog", "bird")


def test_options_in_prompts():
    assert lettered(ANIMALS) == "A. cat\nB. dog\nC. bird"
    assert options_line(ANIMALS) == "(A) cat (B) dog (C) bird"
    assert user_turn("q") == (("user", "<image>\nq"),)
    assert user_turn("q", image=False) == (("user", "q"),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("B", "B"),
        ("(b)", None),
        ("**C**", "C"),
        ("D", None),
        ("It is a dog", "B"),
        ("dog or cat", None),
        ("A dog", "A"),
        ("B is the one that I would choose here", None),
        ("Answer is b because of all that can be seen", "B"),
        ("Cannot determine the answer", "Z"),
        ("Z", "Z"),
        ("", None),
        ("Failed to obtain answer via API", None),
        ("the dog " + "very " * 20, None),
    ],
)
def test_matcher_of_the_circular_evaluation(text, expected):
    assert match_option(text, ANIMALS) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [(None, None), ("b", "B"), ("(c).", "C"), ("Z", None), ("e", None), ("Cannot determine the answer", None)],
)
def test_robust_reading_gives_an_option_or_nothing(text, expected):
    assert read_option(text, ANIMALS) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The answer is blue.", "C"),
        ("The answer is a dog.", "D"),
        ("The correct answer is a blue dog, as can be seen in the picture", None),
        ("The answer is (b)", "B"),
        ("The answer is [d] because of what can be seen in it", "D"),
        ("Answer: C", "C"),
        ("Answer: C, because of what can be seen there", "C"),
        ("answer is a", "A"),
        ("The answer is **a**.", "A"),
        ("The correct answer is A because of what can be seen", "A"),
        ("The answer is option c, because of what can be seen", "C"),
        ("The answer is **D**, because of what can be seen", "D"),
        ("The answer is b because of what can be seen", "B"),
        ("The answer is b.c. 55 as it is written there", None),
        ("The answer is D-Day as it is written there", None),
        ("The answer is H because of what can be seen", None),
        ("The answer isb because of what can be seen", None),
    ],
)
def test_an_answer_that_is_stated_is_a_letter_alone(text, expected):
    assert read_option(text, ("red", "green", "blue", "dog")) == expected


def test_the_matcher_of_the_circular_evaluation_takes_the_first_letter_of_what_is_stated():
    assert match_option("The answer is blue.", ("red", "green", "blue", "dog")) == "B"


@given(st.text(max_size=40), st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=5))
def test_an_option_that_is_read_exists(text, choices):
    assert read_option(text, choices) in {None, *LETTERS[: len(choices)]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes", "yes"),
        ("I say NO!", "no"),
        ("yes and no", None),
        ("not at all", None),
        ("know", None),
        ("", None),
        (None, None),
    ],
)
def test_yes_and_no_are_words(text, expected):
    assert read_yes_no(text) == expected
