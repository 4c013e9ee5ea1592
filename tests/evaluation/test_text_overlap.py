import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vsel_platform.evaluation import text_overlap
from vsel_platform.evaluation.text_overlap import NgramIndex, contains, ngrams, normalised, words

# Few different words, so that texts share n-grams; separators and scripts of all kinds.
pieces = st.sampled_from(["a", "B", "é", "ab", "a b", ", ", " ", "\n", "\0", "_", "ﬁ", "猫", "İ", "\ud800", "0"])
texts = st.lists(pieces, max_size=14).map("".join)


@given(st.lists(texts, max_size=8), st.lists(texts, max_size=8), st.integers(1, 3))
@settings(max_examples=150, deadline=None)
@example(["a b"], ["a", "b"], 2)
@example(["é B"], ["x é\0b", "É b"], 2)
def test_the_search_finds_what_comparing_all_n_grams_finds(wanted, rows, n):
    grams = ngrams(wanted, n)
    expected = {row: found for row, text in enumerate(rows) if (found := grams & ngrams([text], n))}
    assert NgramIndex(grams, n).search(rows) == expected


@given(texts)
def test_words_are_those_of_the_normalised_text(text):
    assert words(normalised(text)) == words(text)
    assert all(unicodedata.is_normalized("NFC", word) for word in words(text))


def test_words_ignore_case_punctuation_and_form():
    assert words("What's the Café's COLOUR—red_ish?") == ["what", "s", "the", "café", "s", "colour", "red", "ish"]
    assert words("Ｒｅｄ ﬁsh") == ["red", "fish"]
    assert words("红色的car") == ["红", "色", "的", "car"]


def test_equal_hashes_are_not_taken_for_equal_words(monkeypatch):
    """With one hash for everything the exact comparison alone decides."""
    monkeypatch.setattr(text_overlap, "_mixed", lambda values: values * 0)
    index = NgramIndex(["red car", "blue car"], 2)
    assert index.search(["a red car", "a red bus", "cars"]) == {0: {"red car"}}


def test_an_n_gram_ends_with_its_row():
    assert NgramIndex(["a b"], 2).search(["a", "b", "a b", ""]) == {2: {"a b"}}


@pytest.mark.parametrize(("part", "inside"), [("b c", True), ("a b c", True), ("a c", False), ("", False)])
def test_a_text_contains_words_in_their_order(part, inside):
    assert contains(["a", "b", "c"], part.split()) is inside


def test_an_index_of_nothing_finds_nothing():
    assert NgramIndex([], 3).search(["a b c"]) == {}
