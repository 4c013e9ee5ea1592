"""Proposed questions as synthetic rows."""

import pytest

from vsel_platform.evaluation.own_questions import Asked, Proposal
from vsel_platform.evaluation.proposed_rows import ProposedRows, SourceOfQuestions, is_near
from vsel_platform.evaluation.window_prompts import Generated

SOURCE = SourceOfQuestions(
    "0123456789abcdef0123", "vqa_synthetic", ("a.png",), ("<image>\nWhat is this?", "Is it red?")
)


def asked(question, answer="A bus.", question_tokens=5, answer_tokens=3):
    return Asked(Generated(question, question_tokens), Generated(answer, answer_tokens))


def made(*questions, source=SOURCE, maker=None, dropped=()):
    maker = maker or ProposedRows("model", question_tokens=8, answer_tokens=6)
    return maker.rows(source, Proposal("s", None, questions, tuple(dropped))), maker.dropped


def test_a_question_becomes_a_marked_row():
    rows, dropped = made(asked("How many wheels?"))
    assert rows == [
        {
            "id": "0123456789abcdef-asked-0",
            "image": "a.png",
            "task": "vqa_synthetic",
            "conversations": [
                {"from": "human", "value": "<image>\nHow many wheels?"},
                {"from": "gpt", "value": "A bus."},
            ],
            "synthetic": {"by": "model", "method": "self_questioning", "of": "0123456789abcdef0123"},
        }
    ]
    assert not +dropped


def test_every_image_has_its_tag():
    source = SourceOfQuestions("s", "t", ("a.png", "b.png"), ())
    ((row,), _) = made(asked("Which one?"), source=source)
    assert row["image"] == ["a.png", "b.png"]
    assert row["conversations"][0]["value"] == "<image>\n<image>\nWhich one?"


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        (asked("what is this"), "near_duplicate"),
        (asked("Is it red?"), "near_duplicate"),
        (asked("Where?", question_tokens=8), "cut_off"),
        (asked("Where?", answer_tokens=6), "cut_off"),
        (asked("Where?", answer=""), "no_answer"),
    ],
)
def test_what_is_no_new_question_with_a_whole_answer_is_dropped_and_counted(question, reason):
    rows, dropped = made(question, asked("How many wheels?"))
    assert [row["id"] for row in rows] == ["0123456789abcdef-asked-0"]
    assert +dropped == {reason: 1}


def test_questions_that_were_drawn_twice_are_counted():
    assert made(dropped=[Generated("Where?", 3)] * 2)[1] == {"blank_repeated_or_too_long": 2}


def test_a_question_is_proposed_once_for_the_same_images():
    maker = ProposedRows("model", 8, 6)
    first, _ = made(asked("How many wheels?"), maker=maker)
    again, _ = made(asked("how many wheels"), maker=maker)
    other, dropped = made(asked("How many wheels?"), maker=maker, source=SourceOfQuestions("s", "t", ("b.png",), ()))
    assert (len(first), len(again), len(other)) == (1, 0, 1)
    assert +dropped == {"near_duplicate": 1}


@pytest.mark.parametrize(
    ("a", "b", "near"),
    [
        ("<image>\nWhat is on the table?", "what is on a table", True),
        ("What is on the table in this room?", "What is there on the table in this room?", True),
        ("What colour is the bus?", "What colour is the car?", False),
        ("Is the man on the left older?", "Is the man on the right older?", False),
        ("Where?", "Where is it?", False),
    ],
)
def test_questions_with_nearly_the_same_words_are_near(a, b, near):
    assert is_near(a, b) is is_near(b, a) is near
