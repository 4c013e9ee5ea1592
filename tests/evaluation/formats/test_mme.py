import json
import math

import numpy as np
import pytest

from vsel_platform.errors import DataError
from vsel_platform.evaluation.benchmark import BenchmarkFiles
from vsel_platform.evaluation.formats.mme import FORMAT, official_question, parse_answer

SHORT = "\nAnswer the question using a single word or phrase."


def write(tmp_path, *rows, truth=True):
    """Rows (task/image, question, answer); annotations in the layout of the evaluation tool."""
    asked = tmp_path / "llava_mme.jsonl"
    asked.write_text("".join(json.dumps({"question_id": i, "image": i, "text": q + SHORT}) + "\n" for i, q, _ in rows))
    results = tmp_path / "Your_Results"
    results.mkdir(exist_ok=True)
    for image, question, answer in rows if truth else ():
        task, name = image.split("/")
        with (results / f"{task}.txt").open("a") as file:
            file.write(f"{name}\t{question} Please answer yes or no.\t{answer}\n")
    return BenchmarkFiles(str(asked), str(results))


def pair(image, question="Is it?"):
    return [(image, question, "Yes"), (image, question.replace("it", "it not"), "No")]


def test_questions_get_answers_and_ids(tmp_path):
    first, second = FORMAT.read(write(tmp_path, *pair("OCR/a.b.png")))
    assert first.turns == (("user", f"<image>\nIs it?{SHORT}"),)
    assert (first.question_id, second.question_id) == ("OCR/a.b.png#1", "OCR/a.b.png#2")
    assert (first.answers, second.answers) == (("yes",), ("no",))
    assert (first.category, first.cluster, first.images) == ("OCR", "OCR/a.b.png", ("OCR/a.b.png",))
    assert first.extra == {"file": "a.txt", "official_question": "Is it? Please answer yes or no."}


def test_blanks_of_the_annotation_are_kept(tmp_path):
    files = write(tmp_path, *pair("OCR/1.png"), truth=False)
    (tmp_path / "Your_Results" / "OCR.txt").write_text(
        "1.png\tIs it?  Please answer yes or no.\tYes\n\n1.png\tIs it not? Please answer yes or no.\tNo\textra\n"
    )
    assert FORMAT.read(files)[0].extra["official_question"] == "Is it?  Please answer yes or no."


def test_released_benchmark_as_annotations(tmp_path):
    files = write(tmp_path, *pair("OCR/1.png"), *pair("artwork/2.jpg"), truth=False)
    for directory, name in (("OCR", "1"), ("artwork/questions_answers_YN", "2")):
        (tmp_path / "release" / directory).mkdir(parents=True)
        lines = [f"Is it{word}? Please answer yes or no.\t{a}\n" for word, a in (("", "Yes"), (" not", "No"))]
        (tmp_path / "release" / directory / f"{name}.txt").write_text("".join(lines))
    questions = FORMAT.read(BenchmarkFiles(files.questions, str(tmp_path / "release")))
    assert [question.answers[0] for question in questions] == ["yes", "no", "yes", "no"]


def test_without_annotations_no_answer_is_known(tmp_path):
    questions = FORMAT.read(BenchmarkFiles(write(tmp_path, *pair("OCR/1.png")).questions))
    judgements = FORMAT.judge(questions, ["yes", None], "llava")
    assert [judgement.score for judgement in judgements] == [None, None]
    assert all(math.isnan(m.estimate) for m in FORMAT.measures(questions, judgements, "llava"))


def test_wrong_files(tmp_path):
    files = write(tmp_path, *pair("OCR/1.png"), *pair("OCR/2.png")[:1])
    with pytest.raises(DataError, match=r"llava_mme\.jsonl, image OCR/2\.png: has 1 questions"):
        FORMAT.read(files)
    with pytest.raises(DataError, match=r"entry 1: 'nothing' is no task"):
        FORMAT.read(write(tmp_path, *pair("nothing/1.png"), truth=False))
    with pytest.raises(DataError, match=r"entry 1: the annotations have no question 'Is she\?"):
        FORMAT.read(write(tmp_path, *pair("OCR/1.png", "Is she?"), truth=False))
    (tmp_path / "Your_Results" / "OCR.txt").write_text("1.png\tIs it?\tPerhaps\n")
    with pytest.raises(DataError, match=r"OCR\.txt, line 1: no image, question and answer"):
        FORMAT.read(files)
    with pytest.raises(DataError, match="holds no annotations"):
        FORMAT.read(BenchmarkFiles(files.questions, str(tmp_path / "absent")))


def test_official_question_is_completed_once():
    assert official_question(f"Is it?{SHORT}") == "Is it? Please answer yes or no."
    assert official_question("Is it? Please answer yes or no.") == "Is it? Please answer yes or no."


@pytest.mark.parametrize(
    ("text", "expected"), [("YES", "yes"), ("eyes", "yes"), ("know", "no"), ("I say no", "other"), ("", "other")]
)
def test_parser_of_the_evaluation_tool(text, expected):
    assert parse_answer(text) == expected


@pytest.mark.parametrize(
    ("compat", "parsed"),
    [("llava", ["no", None, None]), ("official", ["no", None, None]), ("robust", [None, "no", None])],
)
def test_compats(tmp_path, compat, parsed):
    questions = FORMAT.read(write(tmp_path, *pair("OCR/1.png"), *pair("OCR/2.png")))[:3]
    judgements = FORMAT.judge(questions, ["Nobody knows", "I say no", None], compat)
    assert [judgement.parsed for judgement in judgements] == parsed
    assert judgements[2].score == 0.0


def test_scores(tmp_path):
    rows = [*pair("OCR/1.png"), *pair("OCR/2.png"), *pair("count/1.png"), *pair("code_reasoning/1.png")]
    questions = FORMAT.read(write(tmp_path, *rows))
    texts = ["yes", "no", "yes", "yes", "no", "no", "yes", None]
    judgements = FORMAT.judge(questions, texts, "llava")
    measures = FORMAT.measures(questions, judgements, "llava")
    found = {(m.name, m.group): m.estimate for m in measures}
    assert found["score", "OCR"] == pytest.approx(75 + 50)
    assert found["score", "count"] == pytest.approx(50)
    assert found["perception", ""] == pytest.approx(175)
    assert found["cognition", ""] == pytest.approx(50)
    assert found["total", ""] == pytest.approx(225)
    assert found["accuracy", ""] == pytest.approx(62.5)
    assert found["accuracy_plus", ""] == pytest.approx(25)
    assert found["accuracy_plus", "OCR"] == pytest.approx(50)
    assert (measures[0].name, measures[0].unit, measures[0].n_questions) == (FORMAT.headline, "points", 6)


def test_values_are_functions_of_sums(tmp_path):
    questions = FORMAT.read(write(tmp_path, *pair("OCR/1.png"), *pair("count/1.png")))
    judgements = FORMAT.judge(questions, ["yes", "no", "yes", "yes"], "llava")
    measure = FORMAT.measures(questions, judgements, "llava")[0]
    whole, only_ocr = measure.statistics.sum(axis=0), measure.statistics[:2].sum(axis=0)
    values = measure.value(np.stack([2 * whole, only_ocr]))
    assert values[0] == pytest.approx(measure.estimate) == pytest.approx(250)
    assert math.isnan(values[1])


def test_upload_is_one_line_per_question(tmp_path):
    questions = FORMAT.read(write(tmp_path, *pair("OCR/1.png")))
    assert FORMAT.upload(questions, ["Yes\tI\nsee", None]) == {
        "OCR.txt": b"1.txt\tIs it? Please answer yes or no.\tYes\tYes I see\n"
        b"1.txt\tIs it not? Please answer yes or no.\tNo\t\n"
    }
