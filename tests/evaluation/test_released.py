import pytest

from vsel_platform.evaluation.released import (
    aokvqa_answer,
    lmms_eval_option,
    mmbench_rounds,
    mme_lines,
    mme_metric,
    pope_lines,
    qbench_lines,
    qbench_rows,
    scienceqa_evaluation,
    seed_bench_lines,
    seed_bench_metrics,
    seed_bench_upload,
)

QUESTIONS = [
    {"question_id": "1", "question_type_id": 2, "data_type": "image", "answer": "A"},
    {"question_id": "v2", "question_type_id": 1, "data_type": "video", "answer": "B"},
]
ANNOTATION = {"questions": QUESTIONS, "question_type": {"Scene": 1, "Action": 2}}


def answers(first="A", second="B"):
    return [{"question_id": 1, "text": first}, {"question_id": "v2", "text": second}]


def test_seed_bench_lines():
    assert seed_bench_lines(ANNOTATION, answers()[:1]) == [
        "Scene: 0.00%",
        "Action: 100.00%",
        "Total accuracy: 50.00%",
        "image accuracy: 100.00%",
        "video accuracy: 0.00%",
    ]
    assert seed_bench_lines(ANNOTATION, answers("a b", "b"), rule="first_character", kinds=())[-1][-7:] == "100.00%"
    assert seed_bench_metrics(ANNOTATION, answers()) == {"image": 100.0}


def test_seed_bench_errors():
    with pytest.raises(KeyError, match="1"):
        seed_bench_lines(ANNOTATION, answers(second="B."))
    with pytest.raises(ValueError, match="invalid literal"):
        seed_bench_upload(ANNOTATION, answers()[:1])
    with pytest.raises(KeyError):
        seed_bench_upload(ANNOTATION, answers()[1:])


def test_mme():
    files = dict.fromkeys(
        [
            "existence",
            "count",
            "position",
            "color",
            "posters",
            "celebrity",
            "scene",
            "landmark",
            "artwork",
            "OCR",
            "commonsense_reasoning",
            "numerical_calculation",
            "text_translation",
            "code_reasoning",
        ],
        "a\tq\tYes\tyes\na\tr\tNo\tyes\n",
    )
    lines = mme_lines(files)
    assert lines[:2] == ["=========== Perception ===========", "total score: 500.0 "]
    assert "\t OCR  score: 50.0" in lines
    assert mme_metric(["yes", "no"], ["no", "no"])["precision"] == 0.0
    with pytest.raises(ValueError, match="empty input array"):
        mme_metric(["yes"], ["other"])


def test_mmbench():
    assert mmbench_rounds(["x", "y", "z"])[1:] == [
        (["y", "z", "x"], ["B", "C", "A"]),
        (["z", "x", "y"], ["C", "A", "B"]),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("B", "B"), ("(B).", "B"), ("A man is seen", None), ("A dog is seen", "B"), ("A, or B,", None), ("E", "E")],
)
def test_lmms_eval_matcher(text, expected):
    assert lmms_eval_option(text, {"A": "cat", "B": "dog"}) == expected


def test_scienceqa_leaves_unanswered_questions_out_of_the_images():
    problems = {name: {"choices": ["x", "y"], "answer": 0} for name in "abc"}
    rows = [{"question_id": "a", "prompt": "<image>\nq", "text": "A"}, {"question_id": "b", "prompt": "q", "text": "C"}]
    line, output, result = scienceqa_evaluation(problems, list("abc"), rows)
    assert line == "Total: 3, Correct: 1, Accuracy: 33.33%, IMG-Accuracy: 100.00%"
    assert [row["parsed_ans"] for row in output["incorrect"]] == ["C", "FAILED"]
    assert result["results"] == {"a": 0, "b": -1, "c": -1}


def test_pope():
    lines = pope_lines("random", ["Yes", "No, it is not", "Maybe"], ["yes", "no", "no"])
    assert lines[:3] == ["Category: random, # samples: 3", "TP\tFP\tTN\tFN\t", "1\t1\t1\t0"]
    assert lines[8] == "0.667, 0.667, 0.500, 1.000, 0.667"
    with pytest.raises(ZeroDivisionError):
        pope_lines("random", ["No"], ["yes"])


def test_aokvqa_and_qbench():
    assert aokvqa_answer("Mt. Etna") == "mt"
    rows = qbench_rows('{"response": "A", "candidates": ["x", "y"], "correct_ans": "x"}' * 2)
    assert qbench_lines(rows) == ["#" * 50, "2.0 2.0", "1.0"]
