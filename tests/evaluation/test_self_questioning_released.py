"""The released dialogue, with its faults."""

import pytest
from char_tokenizer import pieces

from vsel_platform.evaluation.self_questioning_released import (
    SCIENCE,
    VQA_LOADER,
    answer_row,
    benchmark_calls,
    demo_calls,
    demo_output,
)


def talk(calls, *replies):
    """Calls made when the model gives these replies, and the last reply."""
    made, left, reply = [], list(replies), None
    while True:
        try:
            made.append(calls.send(reply))
        except StopIteration as end:
            return made, end.value
        reply = left.pop(0)


def benchmark(script=VQA_LOADER, question="Is it?", n_questions=1, repaired=True):
    return benchmark_calls(script, "S.", pieces, question, n_questions=n_questions, repaired=repaired)


def test_questions_are_asked_for_with_a_broken_header_and_come_back_as_the_users():
    made, last = talk(benchmark(), "A dog.", "Why?", "So.", "Yes")
    first = "<s>S. USER: <image>\nCan you describe the image in detail? ASSISTANT:"
    assert [call.prompt for call in made] == [
        first,
        f"{first} A dog.</s>VUSE",
        f"{first} A dog.</s>VUSEWhy?</s>ASSISTANT:",
        f"{first} A dog.</s>USER: Why? ASSISTANT: So.</s>USER: Is it? ASSISTANT:",
    ]
    assert last == "Yes"
    assert [call.arguments["do_sample"] for call in made] == [False, True, False, False]


def test_questions_do_not_see_each_other():
    made, _ = talk(benchmark(n_questions=2), "A dog.", "Why?", "So.", "Who?", "It.", "Yes")
    assert made[1].prompt == made[3].prompt


def test_science_asks_for_a_letter_everywhere():
    made, _ = talk(benchmark(SCIENCE, n_questions=0), "A dog.", "A")
    assert all("letter from the given choices directly." in call.prompt for call in made)
    assert made[-1].arguments["max_new_tokens"] == 64


def test_the_scripts_stop_where_they_stopped():
    for calls in (benchmark(repaired=False), demo_calls("S.", n_questions=1, repaired=False)):
        with pytest.raises(AttributeError, match="clear_message"):
            talk(calls, "A dog.")
    with pytest.raises(ValueError, match=r"expected 3, got 1"):
        talk(benchmark(question=("Is it?",), n_questions=0), "A dog.")


def test_the_demo_only_asks():
    made, last = talk(demo_calls("S.", n_questions=2, repaired=True), "A dog.", "Why?", "Who?")
    assert [call.prompt.endswith("A dog.</s>VUSER:") for call in made] == [False, True, True]
    assert last == "Who?"
    assert demo_output(["Why?", "Who?"]) == "VUSER:0:  Why?\nVUSER:1:  Who?\n"


def test_an_answer_is_stripped():
    assert answer_row(7, "Is it?", " Yes ", "m") == {
        "question_id": 7, "prompt": "Is it?", "text": "Yes", "model_id": "m", "metadata": {},
    }  # fmt: skip
