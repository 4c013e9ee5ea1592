import json

import pytest

from vsel_platform.errors import DataError
from vsel_platform.evaluation.benchmark import BenchmarkFiles
from vsel_platform.evaluation.formats.textvqa import FORMAT, question_of_prompt

ENTRY = {
    "question_id": 34602,
    "image_id": "003a8ae2ef43b901",
    "question": "what is the brand of this camera?",
    "answers": ["dakota"] * 8 + ["nous les gosses", "dakota digital"],
}
SHORT = "Answer the question using a single word or phrase."


@pytest.fixture
def write(tmp_path):
    def to_file(name, content):
        text = content if isinstance(content, str) else json.dumps({"data": content})
        (tmp_path / name).write_text(text, "utf-8")
        return str(tmp_path / name)

    return to_file


def prompt(question):
    return question.turns[0][1].removeprefix("<image>\n")


def test_without_ocr_tokens_the_prompt_has_two_lines(write):
    question = FORMAT.read(BenchmarkFiles(write("val.json", [ENTRY])))[0]
    assert prompt(question) == f"What is the brand of this camera?\n{SHORT}"
    assert (question.question_id, question.images) == ("34602", ("003a8ae2ef43b901.jpg",))


@pytest.mark.parametrize("inside", [True, False])
def test_ocr_tokens_come_from_the_entry_or_the_rosetta_file(write, inside):
    tokens = {"ocr_tokens": ["DAKOTA", "DIGITAL"]}
    rosetta = write("rosetta.json", [{"image_id": ENTRY["image_id"], **tokens}])
    path = write("val.json", [ENTRY | tokens if inside else ENTRY])
    question = FORMAT.read(BenchmarkFiles(path, options={} if inside else {"ocr_tokens": rosetta}))[0]
    assert prompt(question) == f"What is the brand of this camera?\nReference OCR token: DAKOTA, DIGITAL\n{SHORT}"


def test_llavas_file_is_joined_by_image_and_question(write):
    text = f"What is the brand of this camera?\nReference OCR token: A, B\n{SHORT}"
    line = {"question_id": ENTRY["image_id"], "image": "003a8ae2ef43b901.jpg", "text": text}
    path, annotations = write("ocr.jsonl", json.dumps(line) + "\n"), write("val.json", [ENTRY])
    question = FORMAT.read(BenchmarkFiles(path, annotations))[0]
    assert prompt(question) == text
    assert question.question_id == "34602" and question.answers[0] == "dakota"
    with pytest.raises(DataError, match="give TextVQA"):
        FORMAT.read(BenchmarkFiles(path))
    with pytest.raises(DataError, match=r"entry 1.*not in"):
        FORMAT.read(BenchmarkFiles(path, write("val.json", [{**ENTRY, "image_id": "x"}])))


@pytest.mark.parametrize("compat", FORMAT.compats)
@pytest.mark.parametrize(("text", "score"), [("Dakota.", 1), ("Dakota Digital", 0.3), ("nikon", 0), (None, 0)])
def test_soft_accuracy_over_ten_annotators(write, compat, text, score):
    questions = FORMAT.read(BenchmarkFiles(write("val.json", [ENTRY])))
    judgements = FORMAT.judge(questions, [text], compat)
    assert judgements[0].score == pytest.approx(score)
    assert FORMAT.measures(questions, judgements, compat)[0].estimate == pytest.approx(100 * score)
    assert FORMAT.upload(questions, [text]) == {}


@pytest.mark.parametrize(
    "text",
    [
        f"What is it?\n{SHORT}",
        f"What is it?\nReference OCR token: A, B\n{SHORT}",
        f"Reference OCR token: A, B\nWhat is it?\n{SHORT}",
        "OCR tokens: A, B. Question: What is it? Short answer:",
    ],
)
def test_the_question_is_found_in_every_prompt(text):
    assert question_of_prompt(text) == "what is it?"


@pytest.mark.parametrize("text", ["What is it?", "a\nb\nc", "OCR tokens: A. What is it?"])
def test_other_prompts_are_refused(text):
    with pytest.raises(DataError, match="none of LLaVA's"):
        question_of_prompt(text)


def test_wrong_files_are_refused(write):
    with pytest.raises(DataError, match=r"data entry 1.*question"):
        FORMAT.read(BenchmarkFiles(write("val.json", [{"image_id": "a"}])))
    with pytest.raises(DataError, match="'data'"):
        FORMAT.read(BenchmarkFiles(write("val.json", "{}")))
