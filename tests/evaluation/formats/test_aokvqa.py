import json
import math

import pytest

from vsel_platform.errors import ConfigError, DataError
from vsel_platform.evaluation.benchmark import BenchmarkFiles
from vsel_platform.evaluation.formats.aokvqa import FORMAT


def entry(question_id="q1", given=("dog", "dog", "Cat"), **changes):
    fixed = {"question_id": question_id, "image_id": 42, "question": "What?", "choices": ["cat", "dog", "cow", "hen"]}
    return {
        **fixed,
        "correct_choice_idx": 1,
        "direct_answers": list(given),
        "difficult_direct_answer": False,
        **changes,
    }


def read(tmp_path, *entries, **options):
    path = tmp_path / "aokvqa_v1p0_val.json"
    path.write_text(json.dumps(entries))
    return FORMAT.read(BenchmarkFiles(str(path), options=options))


def test_every_entry_is_asked_in_both_settings(tmp_path):
    chosen, direct = read(tmp_path, entry())
    letters = "A. cat\nB. dog\nC. cow\nD. hen\nAnswer with the option's letter from the given choices directly."
    assert chosen.turns == (("user", f"<image>\nWhat?\n{letters}"),)
    assert direct.turns == (("user", "<image>\nWhat?\nAnswer the question using a single word or phrase."),)
    assert (chosen.question_id, direct.question_id) == ("q1/multiple_choice", "q1/direct_answer")
    assert (chosen.answers, direct.answers) == (("dog",), ("dog", "dog", "Cat"))
    assert chosen.images == direct.images == ("val2017/000000000042.jpg",)


def test_one_setting_and_own_images(tmp_path):
    (question,) = read(tmp_path, entry(), setting="direct_answer", images="{image_id}.png")
    assert (question.question_id, question.images) == ("q1", ("42.png",))
    with pytest.raises(ConfigError, match="option setting: 'both'"):
        read(tmp_path, entry(), setting="both")
    with pytest.raises(ConfigError, match="option images"):
        read(tmp_path, entry(), images="{name}.png")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"correct_choice_idx": 4}, "entry 1: 'correct_choice_idx' is 4"),
        ({"choices": None}, "entry 1: 'choices'"),
        ({"direct_answers": [1]}, "entry 1: 'direct_answers'"),
        ({"image_id": "x"}, "entry 1: 'image_id' is 'x'"),
        ({"question": 1}, "entry 1: 'question'"),
    ],
)
def test_wrong_entries(tmp_path, changes, problem):
    with pytest.raises(DataError, match=rf"aokvqa_v1p0_val\.json, {problem}"):
        read(tmp_path, entry(**changes))
    with pytest.raises(DataError, match="stands twice"):
        read(tmp_path, entry(), entry())


@pytest.mark.parametrize(
    ("compat", "scores"),
    [("llava", [1, 1, 0, 0, 0]), ("official", [1, 1, 0, 0, 0]), ("robust", [1, 1, 1, 1, 0])],
)
def test_options_by_compat(tmp_path, compat, scores):
    questions = read(tmp_path, *(entry(f"q{number}") for number in range(5)), setting="multiple_choice")
    judgements = FORMAT.judge(questions, ["dog", "B", "B.", "It is a dog", None], compat)
    assert [judgement.score for judgement in judgements] == scores
    assert judgements[0].parsed == judgements[1].parsed == "dog"


@pytest.mark.parametrize(
    ("compat", "scores"), [("llava", [2, 0, 0, 0]), ("official", [2, 0, 0, 0]), ("robust", [2, 2, 1, 0])]
)
def test_direct_answers_by_compat(tmp_path, compat, scores):
    questions = read(tmp_path, *(entry(f"q{number}") for number in range(4)), setting="direct_answer")
    judgements = FORMAT.judge(questions, ["dog", "Dog. ", "cat", None], compat)
    assert [judgement.score for judgement in judgements] == [pytest.approx(score / 3) for score in scores]


def test_a_direct_answer_of_more_than_three_annotators_is_right(tmp_path):
    questions = read(tmp_path, entry(given=["dog"] * 10), setting="direct_answer")
    assert FORMAT.judge(questions, ["dog"], "llava")[0].score == 1.0


def test_measures(tmp_path):
    questions = read(tmp_path, entry("q1"), entry("q2", difficult_direct_answer=True))
    judgements = FORMAT.judge(questions, ["B", "dog", None, "dog"], "llava")
    chosen, direct = FORMAT.measures(questions, judgements, "llava")
    assert (chosen.name, chosen.estimate, chosen.n_questions) == (FORMAT.headline, 50.0, 2)
    assert (direct.name, direct.n_questions) == ("direct_answer", 1)
    assert direct.estimate == pytest.approx(200 / 3)


def test_a_set_without_answers_has_no_metric_but_an_upload(tmp_path):
    questions = read(tmp_path, entry("q1", correct_choice_idx=None, direct_answers=None))
    judgements = FORMAT.judge(questions, ["B", "dog"], "llava")
    assert all(math.isnan(measure.estimate) for measure in FORMAT.measures(questions, judgements, "llava"))
    content = json.loads(FORMAT.upload(questions, ["(B)", None])["predictions_test.json"])
    assert content == {"q1": {"multiple_choice": "dog", "direct_answer": ""}}
