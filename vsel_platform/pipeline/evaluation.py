"""Stages `base_evaluation` and `evaluation`: what the base model and a recipe's checkpoint answer on a benchmark."""

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import pyarrow as pa

from vsel_platform.config_evaluation import BASE
from vsel_platform.errors import NotMaterializedError
from vsel_platform.evaluation.answering import Answer, answer_questions, question_row, rows_of_a_batch
from vsel_platform.evaluation.benchmark import Judgement, Measure, Question
from vsel_platform.evaluation.metric_rows import loss_measures, metric_rows, summary
from vsel_platform.evaluation.self_questioning import answer_with_self_questions
from vsel_platform.identity import fingerprint
from vsel_platform.pipeline.artifacts import fetched
from vsel_platform.pipeline.asked import ASKED, asked_under, image_state, usable_answers
from vsel_platform.pipeline.benchmarks import (
    Benchmark,
    benchmark_fingerprint,
    evaluation_key,
    read_benchmark,
    split_key,
)
from vsel_platform.pipeline.context import Context, Inputs, StageResult, inputs_of
from vsel_platform.pipeline.equal_budget import compared_with_plain
from vsel_platform.pipeline.models import confirm_weights, vlm_fingerprint
from vsel_platform.pipeline.parts import PartLog
from vsel_platform.pipeline.quality import publish_checked
from vsel_platform.pipeline.question_costs import model_passes
from vsel_platform.pipeline.timing import record_rate
from vsel_platform.signals.windows import WINDOW_ROWS, WindowOptions
from vsel_platform.storage.pointers import Pointer
from vsel_platform.tables import TABLES

CODE = "evaluation-4"


def base_inputs(ctx: Context, benchmark: str) -> Inputs:
    """What `base_evaluation` reads: the base model and the benchmark."""
    return inputs_of([], **_settings(ctx, benchmark))


def inputs(ctx: Context, key: str) -> Inputs:
    """What `evaluation` reads: the checkpoint and the benchmark."""
    recipe, benchmark = split_key(ctx, key)
    return _inputs(ctx, recipe, _settings(ctx, benchmark))


def _inputs(ctx: Context, recipe: str, settings: dict[str, Any]) -> Inputs:
    return inputs_of([ctx.store.require("finetuned_checkpoint", {"recipe": recipe})], **settings)


def _settings(ctx: Context, benchmark: str) -> dict[str, Any]:
    evaluation = ctx.project.evaluation
    return {"asked": asked_under(ctx, benchmark, CODE), "intervals": [evaluation.resamples, evaluation.seed]}


def is_current(ctx: Context, key: str) -> bool:
    """Whether the stored evaluation is of the present checkpoint on the present benchmark."""
    pointer = ctx.store.pointer("evaluation", _partition(*split_key(ctx, key)))
    return pointer is not None and pointer.input_fingerprint == inputs(ctx, key).fingerprint


def current_recipes(ctx: Context, benchmark: str, recipes: Sequence[str]) -> list[str]:
    """Those of `recipes` whose stored evaluation on a benchmark is current."""
    settings = _settings(ctx, benchmark)
    found = []
    for name in recipes:
        pointer = ctx.store.pointer("evaluation", _partition(name, benchmark))
        try:
            if pointer is not None and pointer.input_fingerprint == _inputs(ctx, name, settings).fingerprint:
                found.append(name)
        except NotMaterializedError:
            continue  # without a checkpoint that passed its checks no evaluation is current
    return found


def base_is_current(ctx: Context, benchmark: str) -> bool:
    """Whether the stored evaluation of the base model is of the present model on the present benchmark."""
    pointer = ctx.store.pointer("evaluation", _partition(BASE, benchmark))
    return pointer is not None and pointer.input_fingerprint == base_inputs(ctx, benchmark).fingerprint


def is_answered(ctx: Context, recipe: str | None, benchmark: str) -> bool:
    """Whether answers of a recipe's present checkpoint (None: of the base model) to the present questions about the
    present images are stored, however they are read."""
    stored = ctx.store.pointer("answers", _partition(recipe or BASE, benchmark))
    if stored is None or stored.metadata.get("images") != image_state(ctx, benchmark):
        return False
    checkpoint = ctx.store.require("finetuned_checkpoint", {"recipe": recipe}) if recipe else None
    return stored.fingerprint == _answers_fingerprint(ctx, benchmark, checkpoint)


def _answers_fingerprint(ctx: Context, benchmark: str, checkpoint: Pointer | None) -> str:
    """Names which model answers which questions how. How answers are read does not matter to them, and images count
    question by question."""
    return fingerprint(
        vlm=vlm_fingerprint(ctx.project.vlm),
        checkpoint=checkpoint.data_version if checkpoint else None,
        benchmark=benchmark_fingerprint(ctx, benchmark),
        code=CODE,
    )


def run_base(ctx: Context, benchmark: str) -> StageResult:
    """Evaluate the base model on a benchmark."""
    return _run(ctx, "base_evaluation", BASE, benchmark, base_inputs(ctx, benchmark), None)


def run(ctx: Context, key: str) -> StageResult:
    """Evaluate a recipe's checkpoint on a benchmark.

    Raises NotMaterializedError if too much of the benchmarks stands in the rows that it, or what it goes on from, was
    trained on: a checkpoint may be older than the benchmark.
    """
    recipe, benchmark = split_key(ctx, key)
    for name in (*ctx.project.ancestors(recipe), recipe):
        ctx.store.require("leakage", {"recipe": name})
    checkpoint = ctx.store.require("finetuned_checkpoint", {"recipe": recipe})
    return _run(ctx, "evaluation", recipe, benchmark, inputs(ctx, key), checkpoint)


def _run(ctx: Context, stage: str, recipe: str, name: str, wanted: Inputs, checkpoint: Pointer | None) -> StageResult:
    start = time.perf_counter()
    # Before anything is answered: an image that is replaced meanwhile leaves an evaluation that is not current.
    images, asked = image_state(ctx, name), asked_under(ctx, name, CODE)
    benchmark = read_benchmark(ctx, name)
    own = _answers_fingerprint(ctx, name, checkpoint)
    answers, computed = _answers(ctx, recipe, benchmark, own, checkpoint)
    rows, metadata = judged(ctx, benchmark, answers)
    partition = _partition(recipe, name)
    lineage: dict[str, Any] = {
        "fingerprint": own,
        "input_fingerprint": wanted.fingerprint,
        "inputs": wanted.references,
        "code_version": CODE,
        "run_id": ctx.run_id,
    }
    answered = pa.Table.from_pylist(answers, schema=TABLES["answers"].arrow_schema())
    publish_checked(ctx, "answers", partition, answered, metadata={"images": images}, **lineage)
    pointer = publish_checked(
        ctx,
        "evaluation",
        partition,
        pa.Table.from_pylist(rows, schema=TABLES["evaluation"].arrow_schema()),
        metadata=metadata | {ASKED: asked},
        **lineage,
    )
    _log(ctx, recipe, name, own).clear()
    seconds = time.perf_counter() - start
    if computed:
        passes = round(model_passes(benchmark) * computed / len(answers))
        record_rate(ctx, stage, vlm_fingerprint(ctx.project.vlm), passes, seconds)
    return StageResult(
        stage,
        {"key": name if checkpoint is None else evaluation_key(recipe, name)},
        pointer.data_version,
        pointer.rows,
        computed=computed,
        reused=len(answers) - computed,
        failed=sum(answer["answer"] is None for answer in answers),
        seconds=seconds,
        references=[pointer.reference],
        metadata=metadata,
    )


def judged(
    ctx: Context, benchmark: Benchmark, answers: Sequence[dict[str, Any]]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Judge answers (rows of the `answers` table, in the order of the questions), which get `parsed` and `score`; rows
    of the `evaluation` table, and what to tell of them."""
    texts = [answer["answer"] for answer in answers]
    judgements = benchmark.format.judge(benchmark.questions, texts, benchmark.settings.compat)
    for answer, judgement in zip(answers, judgements, strict=True):
        answer["parsed"], answer["score"] = judgement.parsed, judgement.score
    measures: list[Measure] = [
        *benchmark.format.measures(benchmark.questions, judgements, benchmark.settings.compat),
        *loss_measures(benchmark.questions, answers),
    ]
    return _metrics(ctx, benchmark, answers, judgements, measures)


def _metrics(
    ctx: Context,
    benchmark: Benchmark,
    answers: Sequence[Mapping[str, Any]],
    judgements: Sequence[Judgement],
    measures: Sequence[Measure],
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows of the `evaluation` table, and what to tell of them."""
    settings = ctx.project.evaluation
    rows = metric_rows(benchmark.questions, judgements, measures, resamples=settings.resamples, seed=settings.seed)
    metadata = summary(benchmark.format.headline, rows, answers)
    headline = next((m for m in measures if m.name == benchmark.format.headline and not m.group), None)
    if benchmark.settings.self_questioning.questions and headline is not None:
        plain, more = compared_with_plain(
            benchmark, answers, headline, resamples=settings.resamples, seed=settings.seed
        )
        rows += [{**row, "position": len(rows) + number} for number, row in enumerate(plain)]
        metadata |= {name: value for name, value in more.items() if value is not None and math.isfinite(value)}
    return rows, metadata


def _answers(
    ctx: Context, recipe: str, benchmark: Benchmark, own: str, checkpoint: Pointer | None
) -> tuple[list[dict[str, Any]], int]:
    """Answers to all questions in their order, and how many were given now.

    Finished windows are in the log of a killed run; answers of a former evaluation by the same model are in its table.
    """
    log = _log(ctx, recipe, benchmark.name, own)
    stored = ctx.store.pointer("answers", _partition(recipe, benchmark.name))
    tables = [log.load()]
    if stored is not None and stored.fingerprint == own:
        tables.append(ctx.store.read(stored))
    known = usable_answers(benchmark, [row for table in tables if table is not None for row in table.to_pylist()])
    todo = [question for question in benchmark.questions if question.question_id not in known]
    if todo:
        for window in _given(ctx, benchmark, todo, checkpoint):
            log.save(pa.Table.from_pylist(window, schema=TABLES["answers"].arrow_schema()))
            known |= {row["question_id"]: row for row in window}
            ctx.progress("questions", sum(q.question_id in known for q in todo), len(todo))
    return [known[question.question_id] for question in benchmark.questions], len(todo)


def _given(ctx: Context, benchmark: Benchmark, todo: Sequence[Any], checkpoint: Pointer | None) -> "Any":
    from vsel_platform.models.load import load_vlm

    # Questions about one image stand together: it is encoded once.
    ordered = sorted(todo, key=lambda question: (question.images, question.question_id))
    by_id = {question.question_id: question for question in ordered}
    with ExitStack() as stack:
        adapter = stack.enter_context(fetched(ctx, checkpoint)) if checkpoint else None
        model = load_vlm(ctx.project.vlm, ctx.project.compute.device, adapter_dir=str(adapter) if adapter else None)
        if checkpoint is None:
            confirm_weights(ctx, vlm_fingerprint(ctx.project.vlm), model.fingerprint)
        rows = [question_row(question, losses=benchmark.settings.losses) for question in ordered]
        most, asking = benchmark.max_new_tokens, benchmark.settings.self_questioning
        batch_tokens = ctx.project.vlm.batch_tokens
        options = WindowOptions(batch_tokens, min(WINDOW_ROWS, rows_of_a_batch(model, batch_tokens, most)))
        if asking.questions:
            windows = answer_with_self_questions(
                model, rows, benchmark.image, asking, max_new_tokens=most, options=options
            )
        else:
            windows = answer_questions(model, rows, benchmark.image, max_new_tokens=most, options=options)
        for window in windows:
            pairs = [(by_id[answer.question_id], answer) for answer in window]
            yield [answer_row(own, answer, benchmark.image_state(own.images)) for own, answer in pairs]


def answer_row(question: Question, answer: Answer, image_state: str | None = None) -> dict[str, Any]:
    """A row of the `answers` table, not judged yet. `image_state`: of the images it was answered about; None where
    they are not known."""
    return {
        "question_id": question.question_id,
        "category": question.category,
        "cluster": question.cluster,
        "prompt": question.turns[-1][1] if question.turns else "",
        "right_answers": list(question.answers),
        "answer": answer.text,
        "parsed": None,
        "score": None,
        "n_tokens": answer.n_tokens,
        "loss_sum": answer.loss_sum,
        "n_target_tokens": answer.n_target_tokens,
        "failure": answer.failure,
        "trace": answer.trace,
        "image_state": image_state,
    }


def _partition(recipe: str, benchmark: str) -> dict[str, str]:
    return {"recipe": recipe, "benchmark": benchmark}


def _log(ctx: Context, recipe: str, benchmark: str, own: str) -> PartLog:
    return PartLog(ctx.store.files, f"answers-{recipe}-{benchmark}-{own}")
