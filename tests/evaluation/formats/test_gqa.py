import json
import math

import pytest

from vsel_platform.errors import ConfigError, DataError
from vsel_platform.evaluation.benchmark import BenchmarkFiles
from vsel_platform.evaluation.formats.gqa import FORMAT, reasoning_steps, submitted

SELECT = {"operation": "select", "argument": "dog (1)"}


def entry(answer, structural="query", *, balanced=True, **changes):
    return {
        "imageId": "n161313",
        "question": "What is it?",
        "answer": answer,
        "isBalanced": balanced,
        "types": {"structural": structural, "semantic": "obj"},
        "semantic": [SELECT, {"operation": "query", "argument": "name"}],
    } | changes


@pytest.fixture
def load(tmp_path):
    def read(content):
        path = tmp_path / "testdev_balanced_questions.json"
        path.write_text(json.dumps(content), "utf-8")
        return FORMAT.read(BenchmarkFiles(str(path)))

    return read


def test_a_question_is_asked_as_llava_asks_it(load):
    question = load({"201307251": entry("dog")})[0]
    assert question.turns == (("user", "<image>\nWhat is it?\nAnswer the question using a single word or phrase."),)
    assert (question.question_id, question.images, question.answers) == ("201307251", ("n161313.jpg",), ("dog",))
    assert question.cluster == "n161313"


def test_unbalanced_questions_are_left_out(load):
    questions = load({"1": entry("dog", balanced=False), "2": entry("cat")})
    assert [question.question_id for question in questions] == ["2"]


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        ("dog", (1, 1, 1)),
        ("Dog.", (1, 0, 1)),
        ("the dog", (0, 0, 0)),
        ("dog!", (0, 0, 1)),
        ("", (0, 0, 0)),
        (None, (0, 0, 0)),
    ],
)
def test_answers_by_way_of_judging(load, text, scores):
    questions = load({"1": entry("dog")})
    assert tuple(FORMAT.judge(questions, [text], compat)[0].score for compat in FORMAT.compats) == scores


def test_metrics_split_by_type(load):
    questions = load({"1": entry("dog"), "2": entry("cat"), "3": entry("yes", "verify"), "4": entry("no", "logical")})
    judgements = FORMAT.judge(questions, ["dog", "dog", "Yes", None], "llava")
    found = {(m.name, m.group): m.estimate for m in FORMAT.measures(questions, judgements, "llava")}
    assert (found["accuracy", ""], found["binary", ""], found["open", ""]) == (50, 50, 50)
    assert found["accuracy_by_structural", "verify"] == 100 and found["accuracy_by_structural", "logical"] == 0
    assert found["accuracy_by_steps", "1"] == 50 and found["accuracy_by_words", "3"] == 50
    assert FORMAT.measures(questions, judgements, "llava")[0].name == FORMAT.headline


def test_a_split_without_questions_is_not_defined(load):
    questions = load({"1": entry("dog")})
    found = {m.name: m.estimate for m in FORMAT.measures(questions, FORMAT.judge(questions, ["x"], "llava"), "llava")}
    assert math.isnan(found["binary"]) and found["open"] == 0


def test_a_question_without_known_answer_counts_nowhere(load):
    questions = load({"1": entry(None), "2": entry("dog")})
    judgements = FORMAT.judge(questions, ["dog", "dog"], "llava")
    assert judgements[0].score is None
    assert FORMAT.measures(questions, judgements, "llava")[0].n_questions == 1


def test_upload_is_the_input_of_the_official_evaluation(load):
    questions = load({"1": entry("dog"), "2": entry("cat")})
    files = FORMAT.upload(questions, ["Two Dogs..", None])
    assert json.loads(files["testdev_balanced_predictions.json"]) == [
        {"questionId": "1", "prediction": "two dogs"},
        {"questionId": "2", "prediction": ""},
    ]


def test_reasoning_steps_leave_out_naming_and_checking():
    steps = [SELECT, {"operation": "exist", "argument": "?"}, {"operation": "choose name", "argument": "a|b"}]
    assert reasoning_steps(steps) == 1
    assert submitted("3.5..") == "3.5"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "holds a list"),
        ({"1": 5}, "question 1"),
        ({"1": entry("dog", types={"structural": "query"})}, "question 1.*types"),
        ({"1": entry("dog", semantic="x")}, "question 1.*semantic"),
        ({"1": entry("dog", question=None)}, "question 1.*question"),
        ({"1": entry("dog", balanced=False)}, "no question"),
    ],
)
def test_wrong_files_are_refused(load, content, message):
    with pytest.raises(DataError, match=message):
        load(content)


def test_unknown_way_of_judging_is_refused(load):
    with pytest.raises(ConfigError, match="strict"):
        FORMAT.judge(load({"1": entry("dog")}), ["dog"], "strict")
