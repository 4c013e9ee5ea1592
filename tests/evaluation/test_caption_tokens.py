import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsel_platform.evaluation.caption_tokens import pre_caption, ptb_tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("A man's dog, isn't it?", "a man 's dog is n't it"),
        ("They won't; they cannot. It's gonna rain!", "they wo n't they can not it 's gon na rain"),
        ("a double-decker bus - at 10:30 a.m. for $5", "a double-decker bus at 10:30 a.m. for $ 5"),
        ("a girl (smiling) runs!!! what?!", "a girl -lrb- smiling -rrb- runs !!! what ?!"),
        ('10,000 & 5% of the #1 "stop" signs', "10,000 & 5 % of the # 1 stop signs"),
        ("the dogs' bowls, mr. smith, no. 5 and no.", "the dogs bowls mr. smith no. 5 and no"),
        ("red/white w/ 1/2 ... at 5 o'clock", "red/white w / 1/2 at 5 o'clock"),
        ("'tis an '80s rock 'n' roll caf\u00e9", "'t is an '80s rock 'n' roll caf\u00e9"),
        ("a \u201cbest\u201d cake \u2014 it\u2019s 3.5 meters", "a best cake it 's 3.5 meters"),
        ("a U.S. flag. The 4th 2-story house.", "a u.s. flag the 4th 2-story house"),
        (" ,.;: -- ", ""),
    ],
)
def test_tokens_are_those_of_the_penn_treebank_without_punctuation(text, tokens):
    assert " ".join(ptb_tokens(text)) == tokens


def test_clean_up_before_tokenisation():
    assert pre_caption("A dog.  It (really) RUNS!\n", 20) == "a dog it really runs"
    assert pre_caption("a b c d", 2) == "a b"
    assert pre_caption("", 20) == ""


@given(st.text())
def test_tokens_hold_no_blanks_and_are_lower_case(text):
    for token in ptb_tokens(text):
        assert token and not token.isspace() and token == token.lower()
        assert token not in {".", ",", "''", "-"}


@given(st.text(alphabet="abc .,!", max_size=60), st.integers(1, 10))
def test_clean_up_is_idempotent_and_bounded(text, max_words):
    once = pre_caption(text, max_words)
    assert pre_caption(once, max_words) == once
    assert len(once.split()) <= max_words
