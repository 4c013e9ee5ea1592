import pytest

from vsel_platform.errors import DataError
from vsel_platform.evaluation import released_text as released

TEN = [{"answer": "Yes.", "answer_id": i} for i in range(10)]


@pytest.mark.parametrize(("evaluator", "score"), [("official", 0), ("lavis", 0), ("lmms_eval", 1)])
def test_evaluators_differ_on_annotators_that_agree(evaluator, score):
    assert released.released_vqa_accuracy(TEN, "yes", evaluator) == score


def test_equal_entries_drop_out_together():
    same = [{"answer": "cat"}] * 4 + [{"answer": "dog"}] * 6
    numbered = [{**entry, "answer_id": i} for i, entry in enumerate(same)]
    assert released.released_vqa_accuracy(numbered, "cat", "official") == 1
    assert released.released_vqa_accuracy(same, "cat", "official") == pytest.approx(0.6)


def test_the_recorded_annotations_are_left_as_they_are():
    entries = [{"answer": "The Cat", "answer_id": 1}, {"answer": "dog", "answer_id": 2}]
    released.released_vqa_accuracy(entries, "cat", "lmms_eval")
    assert entries[0]["answer"] == "The Cat"


def test_gqa_report_without_a_prediction_is_refused():
    question = {"isBalanced": True, "answer": "a"}
    with pytest.raises(DataError, match="question 1"):
        released.released_gqa_report({"1": question}, [])


def test_an_answer_with_an_underscore_becomes_two():
    assert released.released_vizwiz_accuracy("A", ["a_b"] * 3) == 1
    assert released.released_vizwiz_accuracy("dog ", ["dog"] * 3) == 0
    assert released.released_vizwiz_accuracy("dog", ["Dog"]) == pytest.approx(1 / 3)


def test_broken_lines_are_counted_and_other_ids_are_empty():
    upload, printed = released.released_vqav2_upload(['{"question_id": 1, "text": "A dog."}', "{"], [2, 1])
    assert upload == [{"question_id": 2, "answer": ""}, {"question_id": 1, "answer": "dog"}]
    assert printed == "total results: 1, total split: 2, error_line: 1\n"


def test_a_missing_vizwiz_answer_is_refused():
    with pytest.raises(DataError, match="question 2"):
        released.released_vizwiz_upload([{"question_id": 1, "text": "a"}], [(1, "1.jpg"), (2, "2.jpg")])


@pytest.mark.parametrize(
    ("review", "as_released", "corrected"),
    [
        ("8 9\nGood", (8, 9), (8, 9)),
        ("8, 9", (-1, -1), (8, 9)),
        ("  7.5 10 ", (-1, -1), (7.5, 10)),
        ("eight nine", (-1, -1), None),
        ("", (-1, -1), None),
    ],
)
def test_judge_replies(review, as_released, corrected):
    assert released.released_judge_scores(review) == as_released
    assert released.judge_scores(review) == corrected


def test_unreadable_replies_enter_the_released_mean_only():
    reviews = [{"tuple": [10, 5]}, {"score": [-1, -1]}]
    assert released.released_llava_bench_report("x", reviews).splitlines()[1] == "all 44.4 45.0 20.0"
    assert released.relative_score([(10, 5), None]) == 50
    assert released.relative_score([None]) is None


def test_textvqa_reports_answered_questions_only():
    pairs = [("stop", ["stop"] * 10)]
    assert released.released_textvqa_report("tv", pairs) == "tv\nSamples: 1\nAccuracy: 100.00%\n\n"
    assert released.released_stvqa_accuracy([("Stop.", ["stop"]), ("go", ["stop"])]) == 0.5
