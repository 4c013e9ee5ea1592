"""Stored evaluations as measures over the questions of a benchmark."""

from collections.abc import Mapping
from typing import Any

from vsel_platform.config_evaluation import BASE
from vsel_platform.errors import EvaluationError, NotMaterializedError
from vsel_platform.evaluation.benchmark import Judgement, Measure, Question
from vsel_platform.evaluation.gains import TaskComparison, compare
from vsel_platform.evaluation.metric_rows import LOSS, loss_measures
from vsel_platform.pipeline.asked import ASKED
from vsel_platform.pipeline.benchmarks import Benchmark, read_benchmark
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.evaluation import is_answered
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


def require_answers(ctx: Context, benchmark: Benchmark, recipe: str, *, whole: bool = False) -> None:
    """Raise EvaluationError unless the stored answers of a recipe or of the base model are those of its present
    checkpoint to the present questions, or if nobody of that name has answered; with `whole`, also if the setting
    `rows` leaves questions out.

    Answers that were given elsewhere are taken as they are.
    """
    if recipe == BASE or recipe in ctx.project.recipes:
        try:
            answered = is_answered(ctx, None if recipe == BASE else recipe, benchmark.name)
        except NotMaterializedError:
            answered = False
        if not answered:
            raise EvaluationError(
                f"there are no answers of {recipe}, as it is now, to {benchmark.name} "
                f"({_why_not(ctx, benchmark, recipe)}); run `vsel run --train`"
            )
    elif answers_pointer(ctx, recipe, benchmark.name) is None:
        known = ", ".join([BASE, *ctx.project.recipes, *_imported(ctx, benchmark)])
        raise EvaluationError(
            f"{recipe!r} is no recipe, and no answers to {benchmark.name} were imported under that name; known: {known}"
        )
    left_out = _left_out(ctx, benchmark) if whole else 0
    if left_out:
        raise EvaluationError(
            f"benchmarks.{benchmark.name}.rows leaves {left_out:,} questions out, and the server wants all; set it to "
            "0 and run `vsel run --train`"
        )


def _imported(ctx: Context, benchmark: Benchmark) -> list[str]:
    """Names under which answers that were given elsewhere are kept."""
    names = {p.partition["recipe"] for p in ctx.store.pointers("answers") if p.partition["benchmark"] == benchmark.name}
    return sorted(names - {BASE, *ctx.project.recipes})


def _why_not(ctx: Context, benchmark: Benchmark, recipe: str) -> str:
    """What sets the stored answers of a recipe or of the base model apart from present ones."""
    stored = answers_pointer(ctx, recipe, benchmark.name)
    if stored is None:
        return "it was never asked"
    told = []
    checkpoint = ctx.store.pointer("finetuned_checkpoint", {"recipe": recipe}) if recipe != BASE else None
    if recipe != BASE and (checkpoint is None or checkpoint.reference not in stored.inputs):
        told.append("the stored ones are of another checkpoint")
    read = ctx.store.read(stored, ["question_id", "prompt", "right_answers", "image_state"])
    rows = {row["question_id"]: row for row in read.to_pylist()}
    present = {question.question_id: question for question in benchmark.questions}
    both = [(rows[name], question) for name, question in present.items() if name in rows]
    changed = len(rows.keys() ^ present.keys()) + sum(_asked_otherwise(row, question) for row, question in both)
    pictures = sum(row["image_state"] != benchmark.image_state(question.images) for row, question in both)
    told += [f"{changed:,} of {len(present):,} questions are others"] if changed else []
    told += [f"the pictures of {pictures:,} of {len(present):,} questions are others"] if pictures else []
    return "; ".join(told) or "the base model, or files or settings of the benchmark, are others"


def _asked_otherwise(row: Mapping[str, Any], question: Question) -> bool:
    return (row["prompt"], row["right_answers"]) != (question.turns[-1][1], list(question.answers))


def _left_out(ctx: Context, benchmark: Benchmark) -> int:
    """Questions of the file that are not asked."""
    if not benchmark.settings.rows:
        return 0
    everything = benchmark.settings.model_copy(update={"rows": 0})
    benchmarks = dict(ctx.project.benchmarks) | {benchmark.name: everything}
    whole = read_benchmark(Context(ctx.project.model_copy(update={"benchmarks": benchmarks})), benchmark.name)
    return len(whole.questions) - len(benchmark.questions)


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
    """A recipe's checkpoint against the base model, category by category; nothing unless both were asked the same."""
    stored = [ctx.store.pointer("evaluation", {"recipe": name, "benchmark": benchmark.name}) for name in (BASE, recipe)]
    asked = {found.metadata.get(ASKED) for found in stored if found is not None}
    if None in stored or len(asked) > 1:
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
