"""Which questions a model asks itself, and how a row then looks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_families import picture, tiny_family
from tiny_llava import conversation, tiny_adapter, tiny_tokenizer

from vsel_platform.models.templates import ASKER, load_template
from vsel_platform.models.vlm import ShownImage
from vsel_platform.training.self_questioning import (
    askable_questions,
    drawn_questions,
    target_weights,
    with_questions_asked,
)

TURNS = conversation("<image>\nWhat colour?", "It is red.", "How many?", "Two", "Where?", "On the street.")
SETTING = {"ratio": 0.5, "seed": 1, "epoch": 0, "sample_id": "a"}


def drawn(turns=TURNS, n_images=1, **changes):
    return drawn_questions(turns, n_images, **(SETTING | changes))


def test_the_first_question_and_text_only_rows_are_never_asked():
    assert askable_questions(TURNS, 1) == (2, 4)
    assert askable_questions(TURNS, 0) == ()
    assert askable_questions([("system", "Be kind."), *TURNS], 1) == (3, 5)
    assert askable_questions([("assistant", "Hello."), *TURNS], 1) == (3, 5)
    assert drawn(ratio=1.0) == (2, 4)
    assert drawn(ratio=0.0) == ()


def test_nobody_asks_with_an_image_or_without_words():
    turns = conversation("<image>\nWhat?", "Red.", "And <image>?", "Blue.", "  ", "Yes.")
    assert askable_questions(turns, 2) == ()


def test_the_draw_depends_on_seed_epoch_row_and_turn_alone():
    many = conversation(*["<image>\nWhat?", "Red."], *["Why?", "So."] * 40)
    base = drawn(many)
    assert drawn(many) == base
    assert len({drawn(many, **change) for change in ({}, {"seed": 2}, {"epoch": 1}, {"sample_id": "b"})}) == 4
    assert drawn(many[:20]) == tuple(number for number in base if number < 20)


def test_as_many_are_drawn_as_the_ratio_says():
    drawn_of = [len(drawn(sample_id=str(i), ratio=0.3)) for i in range(2000)]
    assert np.mean(drawn_of) / 2 == pytest.approx(0.3, abs=0.02)


@given(st.floats(0, 1), st.floats(0, 1), st.text(max_size=5))
def test_a_larger_ratio_only_adds_questions(one, other, sample_id):
    low, high = sorted([one, other])
    assert set(drawn(ratio=low, sample_id=sample_id)) <= set(drawn(ratio=high, sample_id=sample_id))


def asked_row(template="vicuna_v1_sq", numbers=(2,)):
    return tiny_adapter(template=template).render(with_questions_asked(TURNS, numbers), 1)


def pieces(row, tokenizer):
    """Decoded targets by number, and whether the model asks them."""
    found = {}
    for number in sorted(set(row.answer_index[row.answer_index >= 0].tolist())):
        own = row.answer_index == number
        asked = set(row.is_asked[own].tolist())
        assert len(asked) == 1
        found[tokenizer.decode(row.input_ids[own]).strip()] = asked.pop()
    return found


def test_a_question_is_a_target_with_its_end_and_its_header_is_not():
    row = asked_row()
    assert pieces(row, tiny_tokenizer()) == {
        "It is red.</s>": False, "Two</s>": False, "On the street.</s>": False, "How many?</s>": True,
    }  # fmt: skip
    text = tiny_tokenizer().decode(row.input_ids)
    assert "red.</s>VUSER: How many?</s> ASSISTANT: Two</s>USER: Where? ASSISTANT:" in text


def test_every_target_of_a_question_has_its_weight_in_order_of_the_targets():
    row = asked_row(numbers=(2, 4))
    asked = row.is_asked[row.answer_index >= 0]
    assert target_weights(row, 0.25).tolist() == np.where(asked, 0.25, 1).tolist()
    assert target_weights(row, 0.25).dtype == np.float32
    assert 0 < asked.sum() < len(asked) == row.n_targets


def test_a_row_without_such_questions_is_the_row_it_always_was():
    row, plain = asked_row(numbers=()), tiny_adapter(template="vicuna_v1_sq").render(TURNS, 1)
    assert row.is_asked is None
    assert not row.asked_targets.any()
    assert (row.input_ids.tolist(), row.labels.tolist()) == (plain.input_ids.tolist(), plain.labels.tolist())


def test_a_cut_row_keeps_the_marks_of_its_tokens():
    whole = asked_row()
    cut = tiny_adapter(template="vicuna_v1_sq", max_tokens=150).render(with_questions_asked(TURNS, (2,)), 1)
    assert len(cut) == 150 < len(whole)
    assert cut.is_asked.tolist() == whole.is_asked[:150].tolist()


def prompt_continues(row, prompt, number):
    """Whether a prompt's tokens are those of the row before target `number`."""
    start = int(np.flatnonzero(row.answer_index == number)[0])
    return prompt.input_ids.tolist() == row.input_ids[:start].tolist()


@pytest.mark.parametrize("template", ["vicuna_v1", "vicuna_v1_sq", "plain"])
def test_a_question_is_asked_for_with_the_tokens_seen_in_training(template):
    adapter = tiny_adapter(template=template)
    row = adapter.render(with_questions_asked(TURNS, (2,)), 1)
    prompt = adapter.render_question_prompt(TURNS[:2], 1)
    assert prompt_continues(row, prompt, 3)
    assert prompt.n_targets == adapter.render(TURNS[:2], 1).n_targets


def test_system_text_of_sq_llava_follows_the_vicuna_one_without_a_blank():
    own, base = load_template("vicuna_v1_sq").system, load_template("vicuna_v1").system
    assert own.startswith(base + "Also, ")
    assert repr(load_template("vicuna_v1")).count("VUSER") == 0


FAMILY_HEADERS = {
    "llava_next": "VUSER: How many?</s> ASSISTANT:",
    "llava_onevision": "<|im_start|>vuser\nHow many?<|im_end|>\n",
    "qwen2_vl": "<|im_start|>vuser\nHow many?<|im_end|>\n",
    "qwen2_5_vl": "<|im_start|>vuser\nHow many?<|im_end|>\n",
    "qwen3_vl": "<|im_start|>vuser\nHow many?<|im_end|>\n",
    "idefics3": "Vuser: How many?<end_of_utterance>\n",
    "smolvlm": "Vuser: How many?<end_of_utterance>\n",
}


@pytest.mark.parametrize("model_type", FAMILY_HEADERS)
def test_every_family_has_a_header_of_its_own_for_the_virtual_user(model_type):
    family = tiny_family(model_type)
    adapter = family.adapter()
    image = adapter.preprocess(picture("a"))
    shown = [ShownImage(len(adapter.row_features(adapter.features([image]))[0]), image.layout)]
    turns = with_questions_asked(TURNS, (2,))
    assert turns[2] == (ASKER, "How many?")
    row = adapter.render(turns, 1, shown=shown)
    assert FAMILY_HEADERS[model_type] in family.tokenizer.decode(row.input_ids)
    end = family.tokenizer.eos_token
    assert pieces(row, family.tokenizer) == {
        f"It is red.{end}": False, f"Two{end}": False, f"On the street.{end}": False, f"How many?{end}": True,
    }  # fmt: skip
    assert row.positions is None or row.positions.shape == (3, len(row))
    prompt = adapter.render_question_prompt(TURNS[:2], 1, shown=shown)
    assert prompt_continues(row, prompt, 3)
