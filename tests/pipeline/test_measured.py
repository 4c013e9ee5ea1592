import pytest
from report_store import publish_answers, report_context

from vsel_platform.errors import EvaluationError, NotMaterializedError
from vsel_platform.pipeline.asked import ASKED
from vsel_platform.pipeline.benchmarks import read_benchmark
from vsel_platform.pipeline.measured import compared_with_base, headline_measures, require_answers, stored_measures

HALF = {"colour": (50, 1.0), "count": (0, 3.0)}


@pytest.fixture
def ctx(tmp_path):
    ctx = report_context(tmp_path)
    publish_answers(ctx, "typical", HALF)
    return ctx


def test_stored_answers_are_measured_again_over_all_questions(ctx):
    benchmark = read_benchmark(ctx, "held_out")
    found = {(m.name, m.group): (m.estimate, m.n_questions) for m in stored_measures(ctx, benchmark, "typical")}
    assert found["exact_match", ""] == (25, 200)
    assert found["exact_match", "colour"] == (50, 100)
    assert found["loss", ""] == (2.0, 200)
    assert found["loss", "count"] == (3.0, 100)
    stored = ctx.store.read_partition("evaluation", {"recipe": "typical", "benchmark": "held_out"}).to_pylist()
    assert {(row["measure"], row["category"]): (row["value"], row["n_questions"]) for row in stored} == found


def test_the_headline_is_one_metric_over_all_questions_and_the_loss(ctx):
    benchmark = read_benchmark(ctx, "held_out")
    found = headline_measures(ctx, benchmark, "typical")
    assert [(m.name, m.group, m.lower_is_better) for m in found] == [("exact_match", "", False), ("loss", "", True)]


def test_questions_that_were_not_asked_count_in_no_metric(ctx):
    publish_answers(ctx, "drawn", HALF | {"side": (100, 1.0)})  # the file has a task more now
    benchmark = read_benchmark(ctx, "held_out")
    assert len(benchmark.questions) == 300
    found = {(m.name, m.group): m.n_questions for m in stored_measures(ctx, benchmark, "typical")}
    assert found["exact_match", ""] == found["loss", ""] == 200


def test_a_checkpoint_is_compared_when_both_evaluations_are_there(ctx):
    benchmark = read_benchmark(ctx, "held_out")
    assert compared_with_base(ctx, benchmark, "typical") == []
    with pytest.raises(NotMaterializedError, match="answers"):
        stored_measures(ctx, benchmark, "base")
    publish_answers(ctx, "base", {"colour": (10, 1.5), "count": (0, 2.0)})
    found = {row.task: row for row in compared_with_base(ctx, benchmark, "typical")}
    assert (found["colour"].base, found["colour"].tuned, found["colour"].verdict) == (10, 50, "learned")
    assert (found["count"].base_loss, found["count"].tuned_loss, found["count"].verdict) == (2.0, 3.0, "worse")
    assert compared_with_base(ctx, benchmark, "drawn") == []


def test_a_base_model_that_was_asked_something_else_is_not_compared(ctx):
    benchmark = read_benchmark(ctx, "held_out")
    publish_answers(ctx, "base", HALF)
    assert compared_with_base(ctx, benchmark, "typical")
    stored = ctx.store.require("evaluation", {"recipe": "base", "benchmark": "held_out"})
    ctx.store.publish(
        "evaluation",
        {"recipe": "base", "benchmark": "held_out"},
        ctx.store.read(stored),
        metadata=dict(stored.metadata) | {ASKED: "other"},
    )
    assert compared_with_base(ctx, benchmark, "typical") == []


def test_answers_of_a_former_checkpoint_are_refused_as_such(copied, tmp_path):
    ctx = copied.context()
    benchmark = read_benchmark(ctx, "held_out")
    require_answers(ctx, benchmark, "random")
    (tmp_path / "adapter.safetensors").write_bytes(b"new")
    ctx.store.publish_artifact("finetuned_checkpoint", {"recipe": "random"}, tmp_path)
    refused = r"no answers of random, as it is now, to held_out \(the stored ones are of another checkpoint\); run"
    with pytest.raises(EvaluationError, match=refused):
        require_answers(ctx, benchmark, "random")


def test_who_was_never_asked_is_told_so(ctx):
    benchmark = read_benchmark(ctx, "held_out")
    with pytest.raises(EvaluationError, match=r"no answers of base, .* \(it was never asked\)"):
        require_answers(ctx, benchmark, "base")
