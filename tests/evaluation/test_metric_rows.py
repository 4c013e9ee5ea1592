import pytest

from vsel_platform.evaluation.metric_rows import metric_text, summary

ROW = {"measure": "exact_match", "category": "", "value": 100 / 3, "low": 20.04, "high": 50.0, "unit": "percent"}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "exact match 33.3 % (20.0 to 50.0)"),
        ({"measure": "perception", "unit": "points"}, "perception 33.3 points (20.0 to 50.0)"),
        (
            {"measure": "loss", "unit": "nat/token", "value": 1.23456, "low": 1.0, "high": 2},
            "loss 1.235 nat/token (1.000 to 2.000)",
        ),
        ({"low": None, "high": None}, "exact match 33.3 %"),
        ({"value": None}, "exact match is not defined"),
    ],
)
def test_a_metric_in_words_has_unit_and_interval(changes, text):
    assert metric_text(ROW | changes) == text


def answer(text, *right):
    return {"answer": text, "right_answers": list(right), "parsed": text, "n_tokens": 2}


def test_a_summary_counts_what_is_not_scored_and_what_was_not_answered():
    found = summary("exact_match", [ROW], [answer("a", "a"), answer("b"), answer(None, "c")])
    assert found["headline"] == "exact match 33.3 % (20.0 to 50.0)"
    assert (found["exact_match"], found["exact_match_low"], found["exact_match_high"]) == (100 / 3, 20.04, 50.0)
    assert (found["n_questions"], found["n_not_answered"], found["n_without_right_answer"]) == (3, 1, 1)


def test_a_summary_says_nothing_of_what_is_not_there():
    assert "n_without_right_answer" not in summary("exact_match", [ROW], [answer("a", "a")])
    unscored = summary("exact_match", [ROW | {"value": None}], [answer("a")])
    assert unscored["n_without_right_answer"] == 1
    assert not {"headline", "exact_match"} & unscored.keys()
