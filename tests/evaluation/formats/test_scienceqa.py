import json

import pytest

from vsel_platform.errors import DataError
from vsel_platform.evaluation.benchmark import BenchmarkFiles
from vsel_platform.evaluation.formats.scienceqa import FORMAT, parse_answer

LETTER = "\nAnswer with the option's letter from the given choices directly."


def problem(answer=1, image=None, n_choices=3, subject="natural science"):
    choices = [f"option {number}" for number in range(n_choices)]
    return {"question": "Why?", "choices": choices, "answer": answer, "hint": "", "image": image, "subject": subject}


def read(tmp_path, *problems, split="test"):
    content = {str(number): found for number, found in enumerate(problems, start=1)}
    (tmp_path / "problems.json").write_text(json.dumps(content))
    (tmp_path / "pid_splits.json").write_text(json.dumps({split: list(content)}))
    return FORMAT.read(BenchmarkFiles(str(tmp_path / "problems.json"), options={"split": split}))


def test_questions_of_the_published_files(tmp_path):
    text, shown = read(tmp_path, problem(), problem(0, "image.png"), split="val")
    prompt = f"Context: N/A\nQuestion: Why?\nOptions: (A) option 0 (B) option 1 (C) option 2{LETTER}"
    assert text.turns == (("user", prompt),)
    assert shown.turns == (("user", f"<image>\n{prompt}"),)
    assert (text.images, shown.images) == ((), ("2/image.png",))
    assert (text.question_id, text.answers, shown.answers) == ("1", ("B",), ("A",))
    assert text.category == "natural science"


def test_llava_file(tmp_path):
    read(tmp_path, problem())
    turns = [{"from": "human", "value": "Asked otherwise\n<image>"}, {"from": "gpt", "value": ""}]
    path = tmp_path / "llava_test_CQM-A.json"
    path.write_text(json.dumps([{"id": "1", "image": "1/a.png", "conversations": turns}]))
    (question,) = FORMAT.read(BenchmarkFiles(str(path), str(tmp_path)))
    assert question.turns == (("user", f"<image>\nAsked otherwise{LETTER}"),)
    assert (question.images, question.answers) == (("1/a.png",), ("B",))
    with pytest.raises(DataError, match="needs the annotations"):
        FORMAT.read(BenchmarkFiles(str(path)))
    path.write_text(json.dumps([{"id": "1", "conversations": []}]))
    with pytest.raises(DataError, match="entry 1: 'conversations' begins with no text"):
        FORMAT.read(BenchmarkFiles(str(path), str(tmp_path)))
    path.write_text(json.dumps([{"id": "9", "conversations": turns}]))
    with pytest.raises(DataError, match=r"problems\.json, problem 9: is not there"):
        FORMAT.read(BenchmarkFiles(str(path), str(tmp_path)))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"answer": 3}, "problem 1: 'answer' is 3, not an index into 3 options"),
        ({"choices": "ab"}, "problem 1: 'choices' is not a list of texts"),
        ({"choices": list("abcdef")}, "problem 1: has more than 5 options"),
        ({"question": None}, "problem 1: 'question'"),
    ],
)
def test_wrong_problems(tmp_path, changes, expected):
    with pytest.raises(DataError, match=expected):
        read(tmp_path, {**problem(), **changes})


def test_an_absent_split_is_named(tmp_path):
    read(tmp_path, problem())
    with pytest.raises(DataError, match=r"pid_splits\.json: has no split 'val'"):
        FORMAT.read(BenchmarkFiles(str(tmp_path / "problems.json"), options={"split": "val"}))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A", "A"),
        ("F", None),
        ("B. as", "B"),
        ("B.", None),
        ("The answer is C!", "C"),
        ("The answer is C", None),
        ("The answer is C. The answer is C.", None),
        ("", None),
    ],
)
def test_parser(text, expected):
    assert parse_answer(text) == expected


@pytest.mark.parametrize(
    ("compat", "parsed"),
    [("llava", ["B", None, None, None]), ("official", ["B", None, None, None]), ("robust", ["B", "B", None, None])],
)
def test_compats(tmp_path, compat, parsed):
    questions = read(tmp_path, problem(), problem(), problem(), problem())
    judgements = FORMAT.judge(questions, ["B", "(b)", "E", None], compat)
    assert [judgement.parsed for judgement in judgements] == parsed
    assert [judgement.score for judgement in judgements] == [float(found == "B") for found in parsed]


def test_measures(tmp_path):
    questions = read(tmp_path, problem(), problem(0, "i.png"), problem(0, "i.png", subject="language science"))
    judgements = FORMAT.judge(questions, ["B", "A", None], "llava")
    measures = FORMAT.measures(questions, judgements, "llava")
    assert [(m.name, m.group, m.n_questions) for m in measures] == [
        ("accuracy", "", 3),
        ("accuracy_image", "", 2),
        ("accuracy", "language science", 1),
        ("accuracy", "natural science", 2),
    ]
    assert [m.estimate for m in measures] == [pytest.approx(200 / 3), 50.0, 0.0, 100.0]
    assert FORMAT.upload(questions, ["B", "A", None]) == {}
