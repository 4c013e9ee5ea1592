import json

import pytest

from vsel_platform.errors import DataError
from vsel_platform.evaluation.benchmark import BenchmarkFiles
from vsel_platform.evaluation.formats.vqav2 import FORMAT

QUESTIONS = [
    {"image_id": 262148, "question": "Where is he looking?", "question_id": 262148000},
    {"image_id": 262148, "question": "Is it day?", "question_id": 262148001},
]


def annotation(question_id, answers, answer_type="other", question_type="where"):
    return {
        "question_id": question_id,
        "question_type": question_type,
        "answer_type": answer_type,
        "answers": [{"answer": a, "answer_id": i, "answer_confidence": "yes"} for i, a in enumerate(answers, 1)],
    }


ANNOTATIONS = [
    annotation(262148001, ["Yes."] * 10, "yes/no", "is it"),
    annotation(262148000, ["down"] * 2 + ["the table"] * 8),
]


@pytest.fixture
def load(tmp_path):
    def read(questions=QUESTIONS, annotations=ANNOTATIONS, subtype="val2014"):
        files = {"questions": tmp_path / "questions.json", "annotations": tmp_path / "annotations.json"}
        files["questions"].write_text(json.dumps({"data_subtype": subtype, "questions": questions}), "utf-8")
        if annotations is None:
            return FORMAT.read(BenchmarkFiles(str(files["questions"])))
        files["annotations"].write_text(json.dumps({"annotations": annotations}), "utf-8")
        return FORMAT.read(BenchmarkFiles(*(str(path) for path in files.values())))

    return read


def test_questions_and_annotations_are_joined_by_id(load):
    first, second = load()
    assert first.turns[0][1] == ("<image>\nWhere is he looking?\nAnswer the question using a single word or phrase.")
    assert first.images == second.images == ("COCO_val2014_000000262148.jpg",)
    assert first.cluster == second.cluster
    assert second.answers == ("Yes.",) * 10 and second.category == "yes/no"


def test_test_dev_has_images_of_the_test_split_and_no_scores(load):
    questions = load(annotations=None, subtype="test-dev2015")
    assert questions[0].images == ("COCO_test2015_000000262148.jpg",)
    judgements = FORMAT.judge(questions, ["down", None], "llava")
    assert [judgement.score for judgement in judgements] == [None, None]
    assert FORMAT.measures(questions, judgements, "llava")[0].n_questions == 0


@pytest.mark.parametrize(
    ("compat", "scores"),
    [("llava", (1, 0)), ("official", (1, 0)), ("robust", (1, 1))],
)
def test_annotators_that_agree_are_not_normalised_except_by_robust(load, compat, scores):
    judgements = FORMAT.judge(load(), ["Table", "yes"], compat)
    assert tuple(judgement.score for judgement in judgements) == scores


def test_commas_in_an_answer_matter_only_before_it_is_normalised_for_upload(load):
    questions = load(annotations=[ANNOTATIONS[0], annotation(262148000, ["10000"] * 10)])
    scores = {compat: FORMAT.judge(questions, ["10,000", None], compat)[0].score for compat in FORMAT.compats}
    assert scores == {"llava": 1, "official": 0, "robust": 1}


def test_a_rare_answer_scores_less(load):
    assert FORMAT.judge(load(), ["down", None], "official")[0].score == pytest.approx(0.6)


def test_metrics_by_answer_type_and_question_type(load):
    questions = load()
    judgements = FORMAT.judge(questions, ["table", None], "official")
    found = {(m.name, m.group): m.estimate for m in FORMAT.measures(questions, judgements, "official")}
    assert found == {
        ("accuracy", ""): 50,
        ("accuracy", "other"): 100,
        ("accuracy", "yes/no"): 0,
        ("accuracy_by_question_type", "is it"): 0,
        ("accuracy_by_question_type", "where"): 100,
    }


def test_upload_has_every_question_with_its_number(load):
    upload = json.loads(FORMAT.upload(load(), ["Two dogs.", None])["vqav2_results.json"])
    assert upload == [
        {"question_id": 262148000, "answer": "2 dogs"},
        {"question_id": 262148001, "answer": ""},
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": ANNOTATIONS[:1]}, "262148000 has no annotation"),
        ({"questions": [{"question": "?", "question_id": "a", "image_id": 1}]}, "questions entry 1.*integer"),
        ({"questions": QUESTIONS[:1] * 2}, "stands twice"),
        ({"questions": []}, "no question"),
        ({"questions": {}}, "not a list of objects"),
        ({"subtype": None}, "data_subtype"),
        ({"annotations": [*ANNOTATIONS[:1], annotation(262148000, [])]}, "annotations entry 2.*answers"),
    ],
)
def test_wrong_files_are_refused(load, changes, message):
    with pytest.raises(DataError, match=message):
        load(**changes)
