"""Self-questioning against plain answers, from traces."""

import json

import pytest

from vsel_platform.config_evaluation import BenchmarkSettings
from vsel_platform.evaluation.benchmark import BenchmarkFiles
from vsel_platform.evaluation.formats.registry import benchmark_format
from vsel_platform.pipeline.benchmarks import Benchmark
from vsel_platform.pipeline.equal_budget import compared_with_plain

RIGHT = ["dog", "cat", "bus", "car"]


@pytest.fixture
def benchmark(tmp_path):
    lines = [{"question_id": f"q{i}", "text": "What is it?", "answers": [answer]} for i, answer in enumerate(RIGHT)]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, lines)))
    settings = BenchmarkSettings(format="jsonl", questions="q.jsonl", compat="robust")
    kind = benchmark_format("jsonl")
    questions = kind.read(BenchmarkFiles(str(tmp_path / "q.jsonl"), None, {}))
    return Benchmark("own", settings, kind, tuple(questions), "")


def answer(text, plain=None):
    """A row of the answers table; `plain` are texts of a token each."""
    trace = None if plain is None else json.dumps({"plain": [{"text": own, "n_tokens": 1} for own in plain]})
    return {"answer": text, "n_tokens": 5, "trace": trace}


def compared(benchmark, answers):
    judged = benchmark.format.judge(benchmark.questions, [own["answer"] for own in answers], "robust")
    headline = benchmark.format.measures(benchmark.questions, judged, "robust")[0]
    return compared_with_plain(benchmark, answers, headline, resamples=200, seed=0)


def test_the_majority_of_the_plain_answers_counts_however_it_is_written(benchmark):
    rows, metadata = compared(
        benchmark,
        [
            answer("dog", ["cow", "Dog.", "the dog"]),
            answer("cat", ["cow", "cat"]),
            answer("bus", ["bus", "car", "car"]),
            answer("cow", ["car"]),
        ],
    )
    assert [(row["measure"], row["value"], row["unit"]) for row in rows] == [
        ("plain_equal_budget", 50.0, "percent"),
        ("plain_greedy", 50.0, "percent"),
        ("minus_plain_equal_budget", 25.0, "percent points"),
    ]
    assert (rows[2]["low"], rows[2]["high"]) == (metadata["minus_plain_low"], metadata["minus_plain_high"])
    assert metadata["plain_equal_budget"] == 50.0
    assert metadata["minus_plain"] == 25.0
    assert metadata["minus_plain_low"] <= 25.0 <= metadata["minus_plain_high"]
    assert (metadata["plain_tokens_per_answer"], metadata["plain_answers_per_question"]) == (9 / 4, 9 / 4)


def test_an_answer_without_a_trace_is_its_own_plain_answer_and_none_is_wrong_for_both(benchmark):
    rows, metadata = compared(benchmark, [answer("dog"), answer(None), answer("bus"), answer("cow", ["car"])])
    assert [row["value"] for row in rows] == [75.0, 75.0, -25.0]
    assert metadata["minus_plain"] == -25.0
    assert metadata["plain_tokens_per_answer"] == (5 + 5 + 1) / 3
    assert rows[0]["n_unparsed"] == 1


def test_nothing_answered_at_all(benchmark):
    rows, metadata = compared(benchmark, [answer(None)] * 4)
    assert [row["value"] for row in rows] == [0.0, 0.0, 0.0]
    assert metadata["minus_plain"] == metadata["plain_answers_per_question"] == 0
