"""Stored evaluations as measures over the questions of a benchmark."""

from typing import Any

from vsel_platform.config_evaluation import BASE
from vsel_platform.evaluation.benchmark import Judgement, Measure
from vsel_platform.evaluation.gains import TaskComparison, compare
from vsel_platform.evaluation.metric_rows import LOSS, loss_measures
from vsel_platform.pipeline.benchmarks import Benchmark
from vsel_platform.pipeline.context import Context
from vsel_platform.storage.pointers import Pointer

COLUMNS = ["question_id", "parsed", "score", "loss_sum", "n_target_tokens"]


def answers_pointer(ctx: Context, recipe: str, benchmark: str) -> Pointer | None:
    """Stored answers of a recipe's checkpoint (or of the base model) to a benchmark."""
    return ctx.store.pointer("answers", {"recipe": recipe, "benchmark": benchmark})


def stored_texts(ctx: Context, benchmark: Benchmark, recipe: str) -> list[str | None]:
    """Stored answers to the benchmark's questions, in their order; None for one that was not answered."""
    table = ctx.store.read_partition(
        "answers", {"recipe": recipe, "benchmark": benchmark.name}, ["question_id", "answer"]
    )
    found = dict(zip(table["question_id"].to_pylist(), table["answer"].to_pylist(), strict=True))
    return [found.get(question.question_id) for question in benchmark.questions]


def stored_judgements(ctx: Context, benchmark: Benchmark, recipe: str) -> list[Judgement]:
    """Stored judgements of the answers, in the order of the benchmark's questions."""
    return [Judgement(row["parsed"], row["score"]) for row in _stored(ctx, benchmark, recipe)]


def _stored(ctx: Context, benchmark: Benchmark, recipe: str) -> list[dict[str, Any]]:
    table = ctx.store.read_partition("answers", {"recipe": recipe, "benchmark": benchmark.name}, COLUMNS)
    rows: dict[str, dict[str, Any]] = {row["question_id"]: row for row in table.to_pylist()}
    missing = dict.fromkeys(COLUMNS)
    return [rows.get(question.question_id, missing) for question in benchmark.questions]


def stored_measures(ctx: Context, benchmark: Benchmark, recipe: str) -> list[Measure]:
    """All metrics of a stored evaluation, over the benchmark's questions in their order; losses last.

    Raises NotMaterializedError if it has not been evaluated; questions that were not asked count as not answered.
    """
    answers = _stored(ctx, benchmark, recipe)
    judgements = [Judgement(answer["parsed"], answer["score"]) for answer in answers]
    return [
        *benchmark.format.measures(benchmark.questions, judgements, benchmark.settings.compat),
        *loss_measures(benchmark.questions, answers),
    ]


def compared_with_base(ctx: Context, benchmark: Benchmark, recipe: str) -> list[TaskComparison]:
    """A recipe's checkpoint against the base model, category by category; nothing while one of them is not there."""
    if any(answers_pointer(ctx, name, benchmark.name) is None for name in (BASE, recipe)):
        return []
    base, tuned = (stored_measures(ctx, benchmark, name) for name in (BASE, recipe))
    settings = ctx.project.evaluation
    return compare(
        base,
        tuned,
        benchmark.clusters,
        benchmark.format.headline,
        n_resamples=settings.resamples,
        seed=settings.seed,
    )


def headline_measures(ctx: Context, benchmark: Benchmark, recipe: str) -> list[Measure]:
    """The headline metric over all questions, and the loss if it is known."""
    names = (benchmark.format.headline, LOSS)
    return [m for m in stored_measures(ctx, benchmark, recipe) if m.name in names and not m.group]
