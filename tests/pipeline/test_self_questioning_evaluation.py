"""An evaluation with self-questioning: answers, traces, and the comparison with plain answering."""

import json

import pytest

from vsel_platform.pipeline import evaluation
from vsel_platform.pipeline.measured import stored_measures

ASKING = {"questions": 2, "question_tokens": 5, "answer_tokens": 4}
HELD_OUT = {"recipe": "base", "benchmark": "held_out"}


@pytest.fixture(scope="module")
def project(make_project):
    return make_project("self_questioning")


def context(project, **asking):
    return project.context({"benchmarks.held_out.self_questioning": asking})


def rows(ctx, table):
    return ctx.store.read_partition(table, HELD_OUT).to_pylist()


@pytest.fixture(scope="module")
def plain(project):
    """Answers, metrics and result without self-questioning."""
    ctx = project.context()
    result = evaluation.run_base(ctx, "held_out")
    return rows(ctx, "answers"), rows(ctx, "evaluation"), result


@pytest.fixture(scope="module")
def asked(project, plain):
    """The same with it."""
    ctx = context(project, **ASKING)
    assert not evaluation.base_is_current(ctx, "held_out")
    result = evaluation.run_base(ctx, "held_out")
    assert evaluation.base_is_current(ctx, "held_out")
    return ctx, rows(ctx, "answers"), rows(ctx, "evaluation"), result


def test_every_answer_has_its_trace_and_all_its_tokens(asked, plain):
    _, answers, _, result = asked
    assert result.computed == len(answers) > 0
    for answer, own in zip(answers, plain[0], strict=True):
        trace = json.loads(answer["trace"])
        assert own["trace"] is None
        assert trace["plain"][0] == {"text": own["answer"], "n_tokens": own["n_tokens"]}
        assert trace["answer"]["text"] == answer["answer"]
        assert own["n_tokens"] < answer["n_tokens"]
        assert sum(said["n_tokens"] for said in trace["plain"]) <= answer["n_tokens"]
    assert result.metadata["tokens_per_answer"] == sum(a["n_tokens"] for a in answers) / len(answers)


def test_plain_answering_for_as_many_tokens_is_measured_beside_it(asked, plain):
    _, answers, metrics, result = asked
    names = [(row["measure"], row["category"]) for row in metrics]
    assert names[-3:] == [("plain_equal_budget", ""), ("plain_greedy", ""), ("minus_plain_equal_budget", "")]
    assert [row["position"] for row in metrics] == list(range(len(metrics)))
    assert names[:-3] == [(row["measure"], row["category"]) for row in plain[1]]
    headline, budget, greedy, minus = metrics[0], *metrics[-3:]
    assert {**plain[1][0], "measure": "", "position": 0} == {**greedy, "measure": "", "position": 0}
    metadata = result.metadata
    assert metadata["minus_plain"] == pytest.approx(headline["value"] - budget["value"])
    assert (minus["value"], minus["low"]) == (metadata["minus_plain"], metadata["minus_plain_low"])
    assert metadata["minus_plain_low"] <= metadata["minus_plain"] <= metadata["minus_plain_high"]
    assert metadata["plain_tokens_per_answer"] <= metadata["tokens_per_answer"]
    assert metadata["plain_answers_per_question"] == sum(
        len(json.loads(answer["trace"])["plain"]) for answer in answers
    ) / len(answers)


def test_without_it_there_is_no_comparison(plain):
    _, metrics, result = plain
    assert not [row for row in metrics if row["measure"].startswith("plain")]
    assert "minus_plain" not in result.metadata


def test_what_reads_the_stored_answers_sees_those_after_self_questioning(asked):
    from vsel_platform.pipeline.benchmarks import read_benchmark

    ctx, _, metrics, _ = asked
    measures = stored_measures(ctx, read_benchmark(ctx, "held_out"), "base")
    assert [measure.estimate for measure in measures] == pytest.approx([row["value"] for row in metrics[:-3]])


def test_answers_are_kept_while_only_their_reading_changes_and_given_again_for_other_questions(project, asked):
    read_otherwise = project.context(
        {"benchmarks.held_out.self_questioning": ASKING, "benchmarks.held_out.compat": "robust"}
    )
    assert evaluation.run_base(read_otherwise, "held_out").computed == 0
    other = context(project, **ASKING, seed=1)
    assert evaluation.run_base(other, "held_out").reused == 0
    assert [row["trace"] for row in rows(other, "answers")] != [row["trace"] for row in asked[1]]


def test_a_killed_evaluation_goes_on_and_gets_the_same(project, asked, monkeypatch):
    from vsel_platform.pipeline import evaluation as stage

    monkeypatch.setattr(stage, "WINDOW_ROWS", 2)
    ctx = context(project, **ASKING, temperature=1.1)
    given = stage.answer_with_self_questions

    def killed(*args, **options):
        windows = given(*args, **options)
        yield next(windows)
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "answer_with_self_questions", killed)
    with pytest.raises(KeyboardInterrupt):
        stage.run_base(ctx, "held_out")
    monkeypatch.setattr(stage, "answer_with_self_questions", given)
    result = stage.run_base(ctx, "held_out")
    assert result.reused == 2
    kept = rows(ctx, "answers")
    again = context(project, **ASKING)
    stage.run_base(again, "held_out")
    whole = stage.run_base(ctx, "held_out")
    assert (whole.reused, rows(ctx, "answers")) == (0, kept)
