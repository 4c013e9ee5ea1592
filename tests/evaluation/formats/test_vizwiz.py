import json

import pytest

from vsel_platform.errors import DataError
from vsel_platform.evaluation.benchmark import BenchmarkFiles
from vsel_platform.evaluation.formats.vizwiz import FORMAT

ANSWERS = [{"answer": answer, "answer_confidence": "yes"} for answer in ["basil"] * 6 + ["basil leaves"] * 4]
ENTRY = {"image": "VizWiz_val_00000000.jpg", "question": "What is this?", "answers": ANSWERS, "answer_type": "other"}
TEST_ENTRY = {"image": "VizWiz_test_00000003.jpg", "question": "What colour is it?"}


@pytest.fixture
def load(tmp_path):
    def read(*entries):
        path = tmp_path / "val.json"
        path.write_text(json.dumps(entries), "utf-8")
        return FORMAT.read(BenchmarkFiles(str(path)))

    return read


def test_the_prompt_allows_unanswerable(load):
    question = load(ENTRY)[0]
    assert question.turns[0][1] == (
        "<image>\nWhat is this?\nWhen the provided information is insufficient, respond with 'Unanswerable'.\n"
        "Answer the question using a single word or phrase."
    )
    assert question.question_id == "VizWiz_val_00000000" and question.category == "other"
    assert question.answers == ("basil",) * 6 + ("basil leaves",) * 4


@pytest.mark.parametrize(("text", "score"), [("Basil.", 1), ("the basil leaves", 1), ("mint", 0), (None, 0)])
@pytest.mark.parametrize("compat", FORMAT.compats)
def test_answers_are_compared_with_all_annotators(load, compat, text, score):
    questions = load(ENTRY)
    judgements = FORMAT.judge(questions, [text], compat)
    assert judgements[0].score == score
    assert [m.estimate for m in FORMAT.measures(questions, judgements, compat)] == [100 * score] * 2


def test_the_test_split_has_no_scores_but_an_upload_of_every_image(load):
    questions = load(TEST_ENTRY, {**TEST_ENTRY, "image": "VizWiz_test_00000004.jpg"})
    assert [j.score for j in FORMAT.judge(questions, ["red", None], "llava")] == [None, None]
    assert json.loads(FORMAT.upload(questions, ["The Red", None])["vizwiz_results.json"]) == [
        {"image": "VizWiz_test_00000003.jpg", "answer": "red"},
        {"image": "VizWiz_test_00000004.jpg", "answer": ""},
    ]


@pytest.mark.parametrize("changes", [{"image": 3}, {"question": None}, {"answers": [3]}, {"answers": []}])
def test_wrong_entries_are_refused_by_number(load, changes):
    with pytest.raises(DataError, match="entry 2.*" + next(iter(changes))):
        load(ENTRY, {**TEST_ENTRY, **changes})
