import json
import math

import pytest

from vsel_platform.errors import DataError
from vsel_platform.evaluation.benchmark import BenchmarkFiles
from vsel_platform.evaluation.formats.qbench import FORMAT, is_right, parse_answer

CHOICES = ["Good", "Bad", "Fair"]


def entry(image="a.jpg", right="Bad", **changes):
    return {"img_path": image, "question": "How?", "candidates": CHOICES, "correct_ans": right, "type": 1, **changes}


def read(tmp_path, *entries):
    path = tmp_path / "llvisionqa_dev.json"
    path.write_text(json.dumps(entries))
    return FORMAT.read(BenchmarkFiles(str(path)))


def test_questions(tmp_path):
    first, second = read(tmp_path, entry(), entry(type=2))
    options = "A. Good\nB. Bad\nC. Fair\n"
    assert first.turns == (("user", f"<image>\nHow?\nChoose between one of the options as follows:\n{options}"),)
    assert (first.question_id, second.question_id) == ("a.jpg#0", "a.jpg#1")
    assert (first.answers, first.category, first.cluster) == (("Bad",), "1", "a.jpg")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [({"right": "bad"}, "entry 1: 'correct_ans' 'bad'"), ({"candidates": "AB"}, "entry 1: 'candidates'")],
)
def test_wrong_entries(tmp_path, changes, problem):
    with pytest.raises(DataError, match=rf"llvisionqa_dev\.json, {problem}"):
        read(tmp_path, entry(**changes))


@pytest.mark.parametrize(
    ("text", "right", "parsed"),
    [
        ("B", True, "Bad"),
        ("B. Good", True, "Bad"),
        ("Bad", True, "Bad"),
        ("Bad light", True, "Bad"),
        ("b", False, None),
        ("A", False, "Good"),
        ("Z", False, None),
        ("", False, None),
    ],
)
def test_rule_of_the_script(text, right, parsed):
    assert is_right(text, CHOICES, "Bad") == right
    assert parse_answer(text, CHOICES) == parsed


@pytest.mark.parametrize(
    ("compat", "scores"),
    [("llava", [1, 0, 1, 0]), ("official", [1, 0, 1, 0]), ("robust", [1, 1, 0, 0])],
)
def test_compats(tmp_path, compat, scores):
    questions = read(tmp_path, entry(), entry(), entry(), entry())
    texts = ["B", "The answer is b", "Better to say: good", None]
    judgements = FORMAT.judge(questions, texts, compat)
    assert [judgement.score for judgement in judgements] == scores


def test_measures_and_unknown_answers(tmp_path):
    questions = read(tmp_path, entry(), entry(type=2), entry(right=None, type=2))
    judgements = FORMAT.judge(questions, ["B", None, "B"], "llava")
    found = {m.group: (m.estimate, m.n_questions) for m in FORMAT.measures(questions, judgements, "llava")}
    assert found == {"": (50.0, 2), "1": (100.0, 1), "2": (0.0, 1)}
    unknown = FORMAT.measures(questions[2:], judgements[2:], "llava")[0]
    assert math.isnan(unknown.estimate)
    assert FORMAT.upload(questions, ["B", None, "B"]) == {}
