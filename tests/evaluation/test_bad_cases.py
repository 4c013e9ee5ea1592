import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsel_platform.errors import DataError
from vsel_platform.evaluation.bad_cases import (
    answer_of_least_loss,
    bad_cases,
    evaluated_rows,
    loss_prompt,
    option_texts,
    type_weights,
)


def row(question_id, question_type="ocr", **changes):
    fixed = {"image_id": 7, "question_id": question_id, "question": "What?", "choices": ["cat", "dog"]}
    answers = {"correct_choice_idx": 1, "direct_answers": ["dog"], "difficult_direct_answer": False}
    return {**fixed, **answers, "question_type": question_type, "prompt": "p", **changes}


ROWS = [row("b"), row("a", "image_style"), row("c")]


def test_scored_texts():
    assert loss_prompt(ROWS[0]) == ("###Human: <img><image></img> What?\n(A) cat (B) dog\n###Assistant: The answer is")
    assert option_texts(ROWS[0]) == ["(A) cat", "(B) dog"]


@pytest.mark.parametrize(
    ("losses", "expected"),
    [([0.2, 0.1], "dog"), ([0.1, 0.1], "cat"), ([0.1, None], None), ([math.nan, 0.1], None), ([math.inf, 0.1], None)],
)
def test_answer_of_least_loss(losses, expected):
    assert answer_of_least_loss(ROWS[0], losses) == expected


def test_every_option_needs_a_loss():
    with pytest.raises(DataError, match="question b: 1 losses for 2 options"):
        answer_of_least_loss(ROWS[0], [0.1])


def test_pools_and_weights():
    answers = {"a": "dog", "b": "cat", "c": "dog"}
    pools = bad_cases(ROWS, answers)
    assert [found["idx"] for found in pools["ocr"]] == ["b"]
    assert pools["image_style"] == []
    assert pools["ocr"][0]["model_answer"] == "cat"
    assert pools["ocr"][0]["image_path"] == "val2017/000000000007.jpg"
    assert type_weights(ROWS, answers) == {"image_style": 0.0, "ocr": 0.5}


def test_released_leaves_out_the_last_row_and_rounds():
    rows = [row(str(number)) for number in range(4)]
    answers = {"0": "cat", "1": "dog", "2": "dog", "3": "cat"}
    assert type_weights(rows, answers, released=True) == {"ocr": 0.333}
    assert [found["idx"] for found in bad_cases(rows, answers, released=True)["ocr"]] == ["0"]
    assert type_weights(rows, answers) == {"ocr": 0.5}


def test_rows_without_an_answer_are_not_evaluated():
    answers = {"a": None, "b": "cat"}
    assert [found["idx"] for found in evaluated_rows(ROWS, answers)] == ["b"]
    assert type_weights(ROWS, answers) == {"ocr": 1.0}
    assert bad_cases([], answers) == type_weights([], answers, released=True) == {}


@given(st.permutations(ROWS))
def test_the_order_of_rows_does_not_matter(rows):
    answers = {"a": "cat", "b": "cat", "c": "dog"}
    assert bad_cases(rows, answers) == bad_cases(ROWS, answers)
    assert list(type_weights(rows, answers).items()) == list(type_weights(ROWS, answers).items())


@pytest.mark.parametrize("changes", [{"question_type": ...}, {"image_id": "x"}, {"correct_choice_idx": 2}])
def test_wrong_rows_are_named(changes):
    wrong = {key: value for key, value in row("b", **changes).items() if value is not ...}
    with pytest.raises(DataError, match="question b: "):
        evaluated_rows([wrong], {"b": "cat"})
