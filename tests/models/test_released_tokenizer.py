"""The sentencepiece tokenizer of the released LLaVA."""

import builtins

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from tiny_released import save_tokenizer

from vsel_platform.errors import MissingPackageError, ModelError
from vsel_platform.models.released_tokenizer import WORD_MARK, ReleasedTokenizer


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def pieces(directory):
    return sentencepiece.SentencePieceProcessor(model_file=str(directory / "tokenizer.model"))


@pytest.fixture(scope="module")
def modern(directory):
    return ReleasedTokenizer(directory)


@pytest.fixture(scope="module")
def legacy(directory):
    return ReleasedTokenizer(directory, legacy=True)


def test_the_word_mark_stands_before_every_part_in_legacy_mode_only(pieces, modern, legacy):
    spelled = ["".join(pieces.id_to_piece(i) for i in t.encode("Two</s>Two")) for t in (modern, legacy)]
    assert spelled == [f"<s>{WORD_MARK}Two</s>Two", f"<s>{WORD_MARK}Two</s>{WORD_MARK}Two"]


def test_a_text_that_begins_with_a_special_token_gets_no_word_mark(modern):
    assert modern.encode("</s>") == [1, 2]


def test_leading_blanks_are_kept_behind_a_special_token(pieces, modern):
    spelled = [pieces.id_to_piece(i) for i in modern.encode("</s> Two")]
    assert "".join(spelled) == f"<s></s>{WORD_MARK}Two"


def test_both_modes_agree_on_text_without_special_tokens(modern, legacy, pieces):
    text = "What colour is the bus?"
    assert modern.encode(text) == legacy.encode(text) == [1, *pieces.encode(text)]


def test_unknown_characters_become_bytes(pieces, modern):
    assert [pieces.id_to_piece(i) for i in modern.encode("é")][-2:] == ["<0xC3>", "<0xA9>"]


def test_an_empty_text_is_the_first_token_alone(modern, legacy):
    assert modern.encode("") == legacy.encode("") == [1]


texts = st.lists(st.sampled_from(["USER: ", "ASSISTANT:", "</s>", "<s>", " ", "\n", "dog", "é", WORD_MARK]), max_size=8)


@given(texts.map("".join))
def test_special_tokens_stand_for_themselves_in_both_modes(modern, legacy, text):
    for tokenizer in (modern, legacy):
        ids = tokenizer.encode(text)
        assert ids[0] == tokenizer.bos_id
        assert ids.count(2) == text.count("</s>")
        assert ids.count(1) == 1 + text.count("<s>")


def test_an_absent_legacy_flag_means_legacy(tmp_path):
    assert ReleasedTokenizer(save_tokenizer(tmp_path, legacy=None)).legacy is True


def test_blanks_beside_a_stripping_special_token_vanish(tmp_path):
    directory = save_tokenizer(tmp_path)
    config = directory / "tokenizer_config.json"
    config.write_text(
        config.read_text().replace('"</s>", "lstrip": false, "rstrip": false', '"</s>", "lstrip": true, "rstrip": true')
    )
    tokenizer = ReleasedTokenizer(directory)
    assert tokenizer.encode("dog </s> dog") == tokenizer.encode("dog</s>dog")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"tokenizer\.model: missing"):
        ReleasedTokenizer(tmp_path)


def test_without_sentencepiece_the_command_is_named(directory, monkeypatch):
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "sentencepiece":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingPackageError, match="pip install sentencepiece"):
        ReleasedTokenizer(directory)
