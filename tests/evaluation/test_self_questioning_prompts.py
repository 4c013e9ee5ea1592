"""Prompts of self-questioning with the tokens of training."""

import pytest
from tiny_llava import IMAGE_TOKENS, tiny_adapter, tiny_tokenizer

from vsel_platform.evaluation.self_questioning_prompts import (
    answering_turns,
    asking_turns,
    describing_turns,
    distinct_questions,
    final_turns,
)

ASKED = [("How many?", "Two"), (" Where? ", "On the street. ")]


def tokens(turns, kind="render_prompt", n_images=1):
    row = getattr(tiny_adapter(template="vicuna_v1_sq"), kind)(turns, n_images)
    return row.input_ids.tolist()


def text(turns, kind="render_prompt"):
    found = tiny_tokenizer().decode(tokens(turns, kind)).replace("<image>" * IMAGE_TOKENS, "<image>")
    return found.split("details. ", 1)[1] if "details. " in found else found


def test_every_step_shows_what_came_before_it():
    first = "USER: <image>\nCan you describe the image in detail? ASSISTANT:"
    assert text(describing_turns()) == first
    assert text(asking_turns("A bus. "), "render_question_prompt") == f"{first} A bus.</s>VUSER:"
    assert text(answering_turns("A bus.", "How many?")) == f"{first} A bus.</s>VUSER: How many?</s> ASSISTANT:"
    assert text(final_turns("A bus.", ASKED, "<image>\nIs it red?")) == (
        f"{first} A bus.</s>VUSER: How many?</s> ASSISTANT: Two</s>VUSER: Where?</s> ASSISTANT: On the street.</s>"
        "USER: Is it red? ASSISTANT:"
    )


def test_prompts_are_beginnings_of_the_row_that_training_shows():
    final = final_turns("A bus.", ASKED, "Is it red?")
    row = tokens([*final, ("assistant", "Yes")], "render")
    for prompt in (
        tokens(describing_turns()),
        tokens(asking_turns("A bus."), "render_question_prompt"),
        tokens(answering_turns("A bus.", "How many?")),
        tokens(final),
    ):
        assert row[: len(prompt)] == prompt


def test_all_images_stand_in_the_first_turn():
    turns = final_turns("Two buses.", [], "Which <image> is red?", n_images=2)
    assert [message.count("<image>") for _, message in turns] == [2, 0, 0]
    assert len(tokens(turns, n_images=2)) > 0


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        (["How many?", " how  many ", "HOW MANY?!", "Where?"], ["How many?", "Where?"]),
        (["", "  ", "?"], []),
        (["b?", "a?"], ["b?", "a?"]),
    ],
)
def test_blank_and_repeated_questions_are_dropped(asked, kept):
    assert distinct_questions(asked) == kept
