import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsel_platform.demo.dataset import PlannedRows
from vsel_platform.demo.tokens import train_tokenizer

TOKENIZER = train_tokenizer(["Name it.", "slice of pizza", "red apple", "pizza"] * 3, 400)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30).filter(lambda text: "<" not in text))
def test_every_text_can_be_written(text: str) -> None:
    shown = TOKENIZER.decode(TOKENIZER.encode(text).ids)
    assert shown.replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize("answer", ["pizza", "a", "3", "slice of pizza", "São Tomé"])
def test_an_answer_comes_back_as_it_was(answer: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(answer).ids) == answer


def test_a_row_begins_with_the_start_token_and_a_word_has_one_token_anywhere() -> None:
    tokens = TOKENIZER.encode("<image>\nName it.\npizza</s>").tokens
    assert tokens[:2] == ["<s>", "<image>"]
    assert tokens[-2:] == ["Ġpizza", "</s>"]
    assert "Ġpizza" in TOKENIZER.encode("slice of pizza").tokens


def test_offsets_cover_even_the_shortest_answer() -> None:
    """Targets are found by character ranges: a token with an empty range would never be one."""
    text = "Which?\na</s>"
    encoded = TOKENIZER.encode(text)
    answer = [text[start:end] for start, end in encoded.offsets if start >= text.index("a<") and start < end]
    assert answer[-1] == "</s>"
    assert set(answer[:-1]) == {"a"}


def test_training_is_deterministic(plan: PlannedRows) -> None:
    texts = [text for row in plan.pool[:100] for turn in row.turns for text in turn]
    assert train_tokenizer(texts, 600).to_str() == train_tokenizer(texts, 600).to_str()
    assert train_tokenizer(texts, 600).get_vocab_size() == 600
