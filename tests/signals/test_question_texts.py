"""Texts of questions and their identity."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsel_platform.signals.question_texts import question_texts, text_id


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<image>\nWhat?", "What?"),
        ("What?\n<image>", "What?"),
        (" <Image> What <image> is it? ", "What  is it?"),
        ("<image>", ""),
        ("", ""),
        ("<IMAGE> <img> stays", "<IMAGE> <img> stays"),
    ],
)
def test_a_question_is_the_words_of_the_user_without_tags(text, expected):
    assert question_texts([("user", text)]) == [expected]


def test_every_user_turn_is_a_question_and_no_other():
    turns = [("system", "s"), ("user", "one"), ("assistant", "a"), ("user", "two"), ("user", "one")]
    assert question_texts(turns) == ["one", "two", "one"]
    assert question_texts([("assistant", "a")]) == []


def test_an_id_is_that_of_the_utf8_text():
    assert text_id("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert text_id("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@given(st.text(st.characters(), max_size=8), st.text(st.characters(), max_size=8))
def test_equal_texts_alone_have_equal_ids(first, second):
    assert (text_id(first) == text_id(second)) == (first == second)


def test_half_a_surrogate_pair_has_an_id():
    assert len({text_id("\ud800"), text_id("\udc00"), text_id("?")}) == 3
