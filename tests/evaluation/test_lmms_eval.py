import json

import pytest

from vsel_platform.errors import ConfigError, DataError
from vsel_platform.evaluation.benchmark import Judgement, Question
from vsel_platform.evaluation.lmms_eval import (
    TASKS,
    LmmsTask,
    export_samples,
    find_task,
    import_answers,
    samples_name,
)


def question(question_id, image="a.jpg"):
    return Question(question_id, (("user", "<image>\nWhat?"),), (image,), ("dog", "cat"), image)


@pytest.fixture
def log(tmp_path):
    def write(content):
        path = tmp_path / "x_samples_gqa.jsonl"
        data = content if isinstance(content, bytes) else "".join(json.dumps(s) + "\n" for s in content).encode()
        path.write_bytes(data)
        return str(path)

    return write


def test_a_line_has_the_fields_of_lmms_eval():
    exported = export_samples(find_task("gqa"), [question("7")], ["a dog"], [Judgement("dog", 1.0)])
    assert json.loads(exported) == {
        "doc_id": 0,
        "doc": {"id": "7", "question": "<image>\nWhat?", "answers": ["dog", "cat"]},
        "target": "dog",
        "resps": [["a dog"]],
        "filtered_resps": ["a dog"],
        "exact_match": 1.0,
    }
    assert samples_name(find_task("gqa"), "20250131_235959") == "20250131_235959_samples_gqa.jsonl"


@pytest.mark.parametrize(
    ("format_name", "ids"),
    [
        ("gqa", ["1", "2", "3"]),
        ("pope", ["random/1", "random/2", "popular/1"]),
        ("mme", ["OCR/a.jpg#1", "OCR/a.jpg#2", "count/b.png#1"]),
        ("mmbench", ["241", "1000241", "252"]),
        ("captioning", ["1", "2", "3"]),
    ],
)
def test_answers_come_back_to_their_questions_in_any_order(log, format_name, ids):
    questions = [question(question_id, image=f"{i}.jpg") for i, question_id in enumerate(ids)]
    task, texts = find_task(format_name), ["x", "y", "z"]
    lines = export_samples(task, questions, texts, [Judgement(None, None)] * 3).splitlines(keepends=True)
    if not task.numbered:
        lines.reverse()
    assert import_answers(log(b"".join(lines)), questions, task) == texts


def test_unanswered_questions_have_no_line(log):
    questions = [question("1"), question("2")]
    exported = export_samples(find_task("gqa"), questions, [None, "y"], [Judgement(None, 0.0)] * 2)
    assert import_answers(log(exported), questions, find_task("gqa")) == [None, "y"]


def test_the_id_may_stand_in_a_metric(log):
    samples = [{"doc_id": 5, "filtered_resps": ["B"], "seed_all": {"question_id": "2", "pred": "B"}}]
    assert import_answers(log(samples), [question("1"), question("2")], LmmsTask("seedbench")) == [None, "B"]


def test_images_of_their_own_name_questions_too(log):
    samples = [{"doc_id": 0, "doc": {"question_id": "COCO_val2014_000000000002.jpg"}, "resps": [["a cat"]]}]
    questions = [question("1", "x/COCO_val2014_000000000001.jpg"), question("2", "x/COCO_val2014_000000000002.jpg")]
    assert import_answers(log(samples), questions, find_task("captioning")) == [None, "a cat"]


def test_a_log_without_ids_is_matched_by_position_if_it_is_complete(log):
    samples = [{"doc_id": 1, "filtered_resps": [["y"]]}, {"doc_id": 0, "filtered_resps": ["x"]}]
    questions = [question("1"), question("2")]
    assert import_answers(log(samples), questions, find_task("scienceqa")) == ["x", "y"]
    with pytest.raises(DataError, match="1 lines without question ids for 2 questions"):
        import_answers(log(samples[:1]), questions, find_task("scienceqa"))


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([{"doc": {"id": "9"}, "resps": [["x"]]}], "line 1: question 9 is not"),
        ([{"doc": {"id": "1"}, "resps": [["x"]]}] * 2, "line 2: question 1 is answered twice"),
        ([{"doc": {"id": "1"}, "resps": [[-3.0, False]]}], "line 1: neither"),
        ([{"doc": {"id": "1"}}], "line 1: neither"),
    ],
)
def test_lines_that_do_not_fit_are_refused(log, samples, message):
    with pytest.raises(DataError, match=message):
        import_answers(log(samples), [question("1"), question("2")], find_task("gqa"))


def mme_pair():
    text = "<image>\n{}\nAnswer the question using a single word or phrase."
    return [
        Question(f"OCR/a.jpg#{n}", (("user", text.format(asked)),), ("OCR/a.jpg",), (right,), "OCR/a.jpg")
        for n, asked, right in ((1, "Is it red?", "yes"), (2, "Is it blue?", "no"))
    ]


def mme_sample(text, question=None, **values):
    return {
        "doc": {"question_id": "OCR/a.jpg"} | ({"question": question} if question else {}),
        "resps": [[text]],
    } | values


@pytest.mark.parametrize(
    ("samples", "answers"),
    [
        ([mme_sample("x", "Is it red?  Please answer yes or no."), mme_sample("y", "is it blue?")], ["x", "y"]),
        ([mme_sample("y", "Is it blue? Please answer yes or no."), mme_sample("x", "Is it red?")], ["x", "y"]),
        ([mme_sample("y", "Is it blue?", target="No")], [None, "y"]),
        ([mme_sample("x", target="Yes"), mme_sample("y", target="No")], ["x", "y"]),
        ([mme_sample("x", target=""), mme_sample("y")], ["x", "y"]),
    ],
)
def test_the_questions_of_an_image_are_told_apart_by_their_texts_or_else_their_order(log, samples, answers):
    assert import_answers(log(samples), mme_pair(), find_task("mme")) == answers


@pytest.mark.parametrize(
    ("samples", "problem"),
    [
        ([mme_sample("x", "Is it green?")], "line 1: asks 'is it green.*does not ask about OCR/a.jpg"),
        ([mme_sample("x", "Is it red?")] * 2, "line 2: question OCR/a.jpg#1 is answered twice"),
        ([mme_sample("x", target="No")], "line 1: has the target 'No', but the answer to question OCR/a.jpg#1"),
        ([mme_sample("x")] * 3, "line 3: question OCR/a.jpg#3 is not in the benchmark"),
    ],
)
def test_lines_that_fit_no_question_of_their_image_are_refused(log, samples, problem):
    with pytest.raises(DataError, match=problem):
        import_answers(log(samples), mme_pair(), find_task("mme"))


def test_an_export_in_which_one_question_of_an_image_is_missing_comes_back(log):
    exported = export_samples(find_task("mme"), mme_pair(), [None, "y"], [Judgement(None, None)] * 2)
    assert import_answers(log(exported), mme_pair(), find_task("mme")) == [None, "y"]


def test_tasks_are_found_by_format_and_name():
    assert find_task("vqav2").name == "vqav2_val"
    assert find_task("vqav2", "ok_vqa_val2014").name == "ok_vqa_val2014"
    for name, message in (("jsonl", "known: none"), ("gqa", "known: gqa")):
        with pytest.raises(ConfigError, match=message):
            find_task(name, "other")
    names = [task.name for tasks in TASKS.values() for task in tasks]
    assert len(names) == len(set(names))
