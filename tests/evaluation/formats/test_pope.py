import json
import math

import pytest

from vsel_platform.errors import DataError
from vsel_platform.evaluation.benchmark import BenchmarkFiles
from vsel_platform.evaluation.formats.pope import FORMAT, parse_answer


def write(tmp_path, name="coco_pope_random.json", labels=("yes", "no"), image="a.jpg"):
    rows = [
        {"question_id": number, "image": image, "text": "Is there a dog in the image?", "label": label}
        for number, label in enumerate(labels, start=1)
    ]
    directory = tmp_path / "coco"
    directory.mkdir(exist_ok=True)
    (directory / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(directory)


def read(tmp_path, **labels):
    for category, found in labels.items():
        directory = write(tmp_path, f"coco_pope_{category}.json", found)
    return FORMAT.read(BenchmarkFiles(directory))


def test_questions_of_the_published_directory(tmp_path):
    write(tmp_path, "coco_pope_popular.jsonl", ("no",))
    first, *_, last = FORMAT.read(BenchmarkFiles(write(tmp_path)))
    sentence = "Answer the question using a single word or phrase."
    assert first.turns == (("user", f"<image>\nIs there a dog in the image?\n{sentence}"),)
    assert (first.question_id, first.category, first.answers) == ("popular/1", "popular", ("no",))
    assert (last.question_id, last.images, last.cluster) == ("random/2", ("a.jpg",), "a.jpg")


def llava_file(tmp_path, *categories, image="a.jpg"):
    rows = [
        {"question_id": f"q{number}", "image": image, "text": "Dog?", "category": category}
        for number, category in enumerate(categories)
    ]
    path = tmp_path / "llava_pope_test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_llava_file_takes_labels_in_order(tmp_path):
    directory = write(tmp_path)
    questions = FORMAT.read(BenchmarkFiles(llava_file(tmp_path, "random", "random"), directory))
    assert [(question.question_id, question.answers[0]) for question in questions] == [("q0", "yes"), ("q1", "no")]
    assert questions[0].turns == (("user", "<image>\nDog?"),)


@pytest.mark.parametrize(
    ("categories", "image", "problem"),
    [
        (["random"], "a.jpg", "category random: has labels without a question"),
        (["random"] * 3, "a.jpg", "entry 3: .* has no label left for category 'random'"),
        (["other"], "a.jpg", "entry 1: .* has no label left for category 'other'"),
        (["random"] * 2, "b.jpg", r"coco_pope_random\.json, entry 1: is about a\.jpg, .* about b\.jpg"),
    ],
)
def test_files_that_do_not_match(tmp_path, categories, image, problem):
    directory = write(tmp_path)
    with pytest.raises(DataError, match=problem):
        FORMAT.read(BenchmarkFiles(llava_file(tmp_path, *categories, image=image), directory))


def test_wrong_directories(tmp_path):
    with pytest.raises(DataError, match=r"holds no coco_pope_\*\.json"):
        FORMAT.read(BenchmarkFiles(str(tmp_path)))
    with pytest.raises(DataError, match="entry 1: 'label' is 'maybe'"):
        FORMAT.read(BenchmarkFiles(write(tmp_path, labels=("maybe",))))


@pytest.mark.parametrize(
    ("text", "expected"), [("No, never", "no"), ("It is not. Yes", "no"), ("NO", "yes"), ("Nope", "yes"), ("", "yes")]
)
def test_parser(text, expected):
    assert parse_answer(text) == expected


@pytest.mark.parametrize(
    ("compat", "parsed"),
    [("llava", ["yes", "no", None]), ("official", ["yes", "no", None]), ("robust", ["no", None, None])],
)
def test_compats(tmp_path, compat, parsed):
    questions = read(tmp_path, random=("yes", "no", "no"))
    judgements = FORMAT.judge(questions, ["NO", "Maybe not", None], compat)
    assert [judgement.parsed for judgement in judgements] == parsed


def test_measures(tmp_path):
    questions = read(tmp_path, random=("yes", "yes", "no", "no"), popular=("yes", "no"))
    judgements = FORMAT.judge(questions, ["yes", "yes", "yes", "no", "no", "no"], "llava")
    assert [judgement.score for judgement in judgements] == [1, 0, 1, 0, 1, 1]
    found = {(m.name, m.group): m.estimate for m in FORMAT.measures(questions, judgements, "llava")}
    values = {
        "f1": (200 / 3, 200 / 3, 200 / 3),
        "accuracy": (50, 75, 62.5),
        "precision": (50, 100, 75),
        "recall": (100, 50, 75),
        "yes_ratio": (100, 25, 62.5),
    }
    for name, expected in values.items():
        assert [found[name, group] for group in ("popular", "random", "")] == pytest.approx(expected), name
    assert next(iter(found)) == (FORMAT.headline, "")


def test_unanswered_questions_are_wrong(tmp_path):
    questions = read(tmp_path, random=("yes", "yes", "no", "no"))
    judgements = FORMAT.judge(questions, ["yes", None, None, "no"], "llava")
    found = {m.name: m.estimate for m in FORMAT.measures(questions, judgements, "llava") if m.group}
    assert found["recall"] == pytest.approx(50)
    assert found["precision"] == pytest.approx(100)
    assert found["accuracy"] == pytest.approx(50)
    assert found["yes_ratio"] == pytest.approx(25)


def test_no_yes_at_all_and_no_label_yes(tmp_path):
    questions = read(tmp_path, random=("yes", "no"))
    judgements = FORMAT.judge(questions, ["no", "no"], "llava")
    found = {m.name: m.estimate for m in FORMAT.measures(questions, judgements, "llava") if m.group}
    assert (found["f1"], found["precision"], found["recall"]) == (0.0, 0.0, 0.0)
    only_no = {m.name: m.estimate for m in FORMAT.measures(questions[1:], judgements[1:], "llava") if m.group}
    assert math.isnan(only_no["recall"])
    assert only_no["accuracy"] == 100.0
    assert FORMAT.upload(questions, ["no", "no"]) == {}
