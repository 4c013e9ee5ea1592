import json
import math

import pytest

from vsel_platform.errors import ConfigError, DataError
from vsel_platform.evaluation.benchmark import BenchmarkFiles
from vsel_platform.evaluation.formats.seed_bench import FORMAT


def entry(question_id, type_id=1, kind="image", answer="B", **changes):
    choices = {f"choice_{letter}": f"option {letter}" for letter in "abcd"}
    fixed = {"question_id": question_id, "question_type_id": type_id, "data_type": kind, "data_id": f"d{question_id}"}
    return {**fixed, "question": "What?", "answer": answer, **choices, **changes}


def annotation(*entries):
    return {"questions": list(entries), "question_type": {"Scene": 1, "Action": 2}}


def read(tmp_path, content, **options):
    path = tmp_path / "SEED-Bench.json"
    path.write_text(json.dumps(content))
    return FORMAT.read(BenchmarkFiles(str(path), options=options))


def test_question_of_the_published_file(tmp_path):
    (question,) = read(tmp_path, annotation(entry("7")))
    prompt = "<image>\nWhat?\nA. option a\nB. option b\nC. option c\nD. option d\n"
    assert question.turns == (("user", prompt + "Answer with the option's letter from the given choices directly."),)
    assert question.images == ("SEED-Bench-image/d7",)
    assert (question.question_id, question.category, question.cluster) == ("7", "Scene", "d7")
    assert question.answers == ("B",)


def test_videos_need_a_pattern_of_their_frames(tmp_path):
    content = annotation(entry("1"), entry("v2", 2, "video"))
    assert [question.question_id for question in read(tmp_path, content)] == ["1"]
    both = read(tmp_path, content, video_images="frames/{question_id}.png")
    assert both[1].images == ("frames/v2.png",)
    with pytest.raises(ConfigError, match=r"question 2.*\{segment\}"):
        read(tmp_path, content, video_images="{segment}.png")


def test_llava_file_names_images_and_prompts(tmp_path):
    (tmp_path / "SEED-Bench.json").write_text(json.dumps(annotation(entry("1"), entry("v2", 2, "video"))))
    asked = tmp_path / "llava-seed-bench.jsonl"
    asked.write_text(json.dumps({"question_id": "v2", "image": "f/2.png", "text": "Which?"}))
    (question,) = FORMAT.read(BenchmarkFiles(str(asked), str(tmp_path / "SEED-Bench.json")))
    assert (question.question_id, question.images, question.category) == ("v2", ("f/2.png",), "Action")
    assert question.turns == (("user", "<image>\nWhich?"),)
    asked.write_text(json.dumps({"question_id": 9, "image": "f/9.png", "text": "Which?"}))
    with pytest.raises(DataError, match="entry 1: question 9 is not in"):
        FORMAT.read(BenchmarkFiles(str(asked), str(tmp_path / "SEED-Bench.json")))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([], "no list 'questions'"),
        ({"questions": []}, "no table 'question_type'"),
        (annotation(entry("1"), entry("1")), "question 2: id 1 stands twice"),
        (annotation(entry("1", answer="E")), "question 1: 'answer' is 'E'"),
        (annotation(entry("1", 3)), "question 1: 'question_type_id' 3"),
        (annotation(entry("1", kind="audio")), "question 1: 'data_type' is 'audio'"),
        (annotation(entry("1", choice_c=None)), "question 1: 'choice_c'"),
        (annotation("no object"), "question 1: 'question_id'"),
    ],
)
def test_wrong_files(tmp_path, content, problem):
    with pytest.raises(DataError, match=rf"SEED-Bench\.json.*{problem}"):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("compat", "scores"), [("llava", [1, 0, 0, 0]), ("official", [1, 0, 0, 0]), ("robust", [1, 1, 1, 0])]
)
def test_compats(tmp_path, compat, scores):
    questions = read(tmp_path, annotation(*(entry(str(number)) for number in range(4))))
    judgements = FORMAT.judge(questions, ["B", "b.", "It is option b", None], compat)
    assert [judgement.score for judgement in judgements] == scores
    assert judgements[3].parsed is None


def test_measures(tmp_path):
    content = annotation(
        entry("1"), entry("2", 2), entry("3", 2, "video"), entry("4", 2, "video", None), entry("5", 2, "video")
    )
    questions = read(tmp_path, content, video_images="{question_id}")
    judgements = FORMAT.judge(questions, ["B", "A", None, "B", "B"], "llava")
    assert judgements[3].score is None
    found = {(m.name, m.group): (m.estimate, m.n_questions) for m in FORMAT.measures(questions, judgements, "llava")}
    assert found == {
        ("accuracy", ""): (50.0, 4),
        ("accuracy", "Scene"): (100.0, 1),
        ("accuracy", "Action"): (pytest.approx(100 / 3), 3),
        ("accuracy_image", ""): (50.0, 2),
        ("accuracy_video", ""): (50.0, 2),
    }
    assert next(iter(found)) == (FORMAT.headline, "")
    without = FORMAT.measures(questions[:1], judgements[:1], "llava")
    assert math.isnan(without[-1].estimate)


def test_upload_has_a_line_for_every_question(tmp_path):
    questions = read(tmp_path, annotation(entry("1"), entry("2")))
    lines = FORMAT.upload(questions, ["A", None])["seed_bench.jsonl"].decode().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"question_id": "1", "prediction": "A"},
        {"question_id": "2", "prediction": ""},
    ]
