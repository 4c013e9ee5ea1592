"""The released label arithmetic on texts of its own; its faults stay visible."""

import pytest
from char_tokenizer import CharTokenizer, supervised_spans

from vsel_platform.errors import DataError
from vsel_platform.training.labels_released import (
    LLAMA_2,
    VICUNA,
    VICUNA_SQ,
    released_conversation,
    released_flips,
    released_image_ids,
    released_llama_2_prompt,
    released_plain_labels,
    released_plain_prompt,
    released_round_labels,
    released_sq_prompt,
    released_vicuna_prompt,
)

TOKENIZER = CharTokenizer([chr(i) for i in range(10, 127)])
TALK = [
    {"from": "human", "value": "<image>\nWho?"},
    {"from": "gpt", "value": "A dog."},
    {"from": "human", "value": "Why?"},
    {"from": "gpt", "value": "So."},
]


def spans(prompt, rounds, *, has_image=True, tokenizer=TOKENIZER):
    found = released_round_labels(prompt, tokenizer, rounds, has_image=has_image)
    return supervised_spans(found.labels, tokenizer.decode), found.warning


def test_answers_are_targets_with_their_blank_and_end():
    prompt = released_vicuna_prompt(TALK, "S.")
    assert prompt == "S. USER: <image>\nWho? ASSISTANT: A dog.</s>USER: Why? ASSISTANT: So.</s>"
    assert spans(prompt, VICUNA) == ([" A dog.</s>", " So.</s>"], "")


def test_a_flipped_question_is_a_target_too():
    prompt = released_sq_prompt(TALK, "S.", [True])
    assert prompt == "S. USER: <image>\nWho? ASSISTANT: A dog.</s>VUSER: Why?</s> ASSISTANT: So.</s>"
    assert spans(prompt, VICUNA_SQ) == ([" A dog.</s>", " Why?</s>", " So.</s>"], "")


def test_the_marker_inside_a_question_masks_the_row_or_teaches_the_users_words():
    turns = [*TALK[:2], {"from": "human", "value": "Is ASSISTANT: it?"}, TALK[3]]
    found, warning = spans(released_vicuna_prompt(turns, "S."), VICUNA)
    assert found == []
    assert warning.startswith("WARNING: tokenization mismatch: ")
    found, warning = spans(released_sq_prompt(turns, "S.", [False]), VICUNA_SQ)
    assert found[1] == "Is ASSISTANT: it? ASSISTANT: So.</s>"
    assert not warning


def test_sq_llava_keeps_an_answer_at_the_start_and_llava_drops_it():
    assert released_vicuna_prompt(TALK[1:], "S.") == "S. USER: Why? ASSISTANT: So.</s>"
    assert released_sq_prompt(TALK[1:3], "S.") == "S. ASSISTANT: A dog. USER: Why?</s>"


def test_llama_2_has_its_system_text_in_the_first_turn():
    prompt = released_llama_2_prompt(TALK, "S.")
    assert prompt == (
        "[INST] <<SYS>>\nS.\n<</SYS>>\n\n<image>\nWho? [/INST] A dog. </s><s>[INST] Why? [/INST] So. </s>"
    )
    assert spans(prompt, LLAMA_2) == ([" A dog. </s>", " So. </s>"], "")


def test_pre_training_learns_the_caption_and_drops_the_question():
    prompt = released_plain_prompt(TALK[:2])
    found = released_plain_labels(prompt, TOKENIZER)
    assert supervised_spans(found.labels, TOKENIZER.decode) == ["A dog.\n"]
    for turns in (TALK, TALK[2:]):
        with pytest.raises(DataError, match="pre-training row"):
            released_plain_prompt(turns)


def test_rows_without_image_are_cut_and_a_full_row_is_not_checked():
    tokenizer = CharTokenizer([chr(i) for i in range(10, 127)])
    tokenizer.model_max_length = 30
    prompt = released_vicuna_prompt(TALK[2:], "S.")
    found = released_round_labels(prompt, tokenizer, VICUNA, has_image=False)
    assert len(found.ids) == 30
    assert not found.warning


def test_tags_become_one_at_the_front_of_their_turn():
    turns = [{"from": "human", "value": "a <image> b\n<image>"}, {"from": "gpt", "value": "c"}]
    assert released_conversation(turns)[0]["value"] == "<image>\na  b"
    assert turns[0]["value"] == "a <image> b\n<image>"


def test_flips_are_drawn_for_later_human_turns_in_order():
    draws = iter([0.4, 0.6])
    turns = [*TALK, {"from": "human", "value": "And?"}]
    assert released_flips(turns, 0.5, lambda: next(draws)) == [True, False]


def test_only_the_first_chunk_keeps_its_beginning():
    assert released_image_ids("a<image>b", TOKENIZER) == [
        1,
        *TOKENIZER.encode("a")[1:],
        -200,
        *TOKENIZER.encode("b")[1:],
    ]
    bare = CharTokenizer(["a", "b"], add_bos=False)
    assert released_image_ids("<image>a", bare) == [-200, 3]


def test_roles_out_of_step_are_an_error_in_llava():
    with pytest.raises(DataError, match="turn 1 is from 'human'"):
        released_vicuna_prompt([TALK[0], TALK[2]], "S.")
