import pytest

from vsel_platform.errors import EvaluationError
from vsel_platform.pipeline.benchmarks import read_benchmark
from vsel_platform.pipeline.imported_answers import publish_imported


@pytest.fixture
def context(copied):
    return copied.context()


def test_imported_answers_are_judged_with_intervals_and_kept_under_their_name(context):
    benchmark = read_benchmark(context, "held_out")
    texts = [question.answers[0] for question in benchmark.questions]
    texts[0], texts[1] = "wrong", None
    found = publish_imported(context, benchmark, "elsewhere", texts)
    right = 100 * (len(texts) - 2) / len(texts)
    assert found["exact_match"] == pytest.approx(right)
    assert found["exact_match_low"] <= right <= found["exact_match_high"]
    assert found["n_not_answered"] == 1
    key = {"recipe": "elsewhere", "benchmark": "held_out"}
    rows = {row["question_id"]: row for row in context.store.read_partition("answers", key).to_pylist()}
    first, second = (rows[question.question_id] for question in benchmark.questions[:2])
    assert (first["answer"], first["score"]) == ("wrong", 0.0)
    assert (second["answer"], second["failure"]) == (None, "not in the log")
    metrics = context.store.read_partition("evaluation", key).to_pylist()
    assert "loss" not in {row["measure"] for row in metrics}


@pytest.mark.parametrize("name", ["base", "presel"])
def test_a_name_that_is_taken_is_refused(context, name):
    benchmark = read_benchmark(context, "held_out")
    with pytest.raises(EvaluationError, match=f"'{name}' is a recipe's name"):
        publish_imported(context, benchmark, name, [None] * len(benchmark.questions))
