import json

import numpy as np
import pytest

from vsel_platform.errors import ConfigError, DataError
from vsel_platform.evaluation.benchmark import Judgement, Question
from vsel_platform.evaluation.formats.annotation_files import Entry
from vsel_platform.evaluation.text_benchmarks import (
    all_questions,
    annotator_answers,
    read_object,
    require_compat,
    section,
    split_measures,
    to_json,
    unanswered,
)


def question(answers=("dog",), **extra):
    return Question("1", (), (), tuple(answers), "1", extra=extra)


def test_objects_and_their_sections(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"data": [{"a": 1}], "other": [1]}', "utf-8")
    content = read_object(str(path))
    assert section("x.json", content, "data")[0].place == "data entry 1"
    for key in ("other", "none"):
        with pytest.raises(DataError, match=f"x.json: '{key}'"):
            section("x.json", content, key)
    path.write_text("[]", "utf-8")
    with pytest.raises(DataError, match="holds a list"):
        read_object(str(path))


@pytest.mark.parametrize("answers", [[{"answer": "a"}, {"answer": "b"}], ["a", "b"]])
def test_answers_of_annotators_in_both_forms(answers):
    assert annotator_answers(Entry("f", "entry 1", {"answers": answers})) == ("a", "b")


@pytest.mark.parametrize("answers", [None, [], [3], [{"text": "a"}]])
def test_other_answers_are_refused(answers):
    with pytest.raises(DataError, match="f, entry 1"):
        annotator_answers(Entry("f", "entry 1", {"answers": answers}))


def test_no_questions_are_refused():
    with pytest.raises(DataError, match=r"x\.json"):
        all_questions("x.json", [])
    assert len(all_questions("x.json", [question()])) == 1


def test_a_missing_answer_is_wrong_only_where_the_right_one_is_known():
    assert unanswered(question()).score == 0
    assert unanswered(question(answers=())).score is None


def test_splits_are_sorted_numbers_as_numbers():
    questions = [question(words=value) for value in ("10", "9", "9", "")]
    judgements = [Judgement(None, score) for score in (1.0, 0.0, None, 1.0)]
    found = split_measures("accuracy", questions, judgements, "words")
    assert [(m.group, m.estimate, m.n_questions) for m in found] == [("9", 0, 1), ("10", 100, 1)]
    assert np.isfinite(found[0].statistics).all()


def test_compat_and_upload_files():
    require_compat("gqa", "llava", ("llava",))
    with pytest.raises(ConfigError, match="official"):
        require_compat("gqa", "official", ("llava",))
    assert json.loads(to_json({"a": "\u00e9"})) == {"a": "\u00e9"}
