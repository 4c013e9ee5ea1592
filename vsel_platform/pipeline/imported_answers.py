"""Answers that were given elsewhere, judged here."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from vsel_platform.config_evaluation import BASE
from vsel_platform.errors import EvaluationError
from vsel_platform.evaluation.answering import Answer
from vsel_platform.evaluation.metric_rows import metric_text
from vsel_platform.identity import fingerprint
from vsel_platform.pipeline.benchmarks import Benchmark, benchmark_fingerprint
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.evaluation import CODE, answer_row, judged
from vsel_platform.pipeline.quality import publish_checked
from vsel_platform.tables import TABLES


def publish_imported(ctx: Context, benchmark: Benchmark, name: str, texts: Sequence[str | None]) -> dict[str, Any]:
    """Judge and publish answers (None: not answered) in the order of the benchmark's questions, as if a recipe `name`
    had given them; the headline metric with its interval, and counts.

    Raises EvaluationError for the name of a recipe or of the base model.
    """
    if name == BASE or name in ctx.project.recipes:
        raise EvaluationError(f"{name!r} is a recipe's name or that of the base model; give the answers another")
    pairs = zip(benchmark.questions, texts, strict=True)
    answers = [
        answer_row(
            question, Answer(question.question_id, text, 0, failure=None if text is not None else "not in the log")
        )
        for question, text in pairs
    ]
    rows, metadata = judged(ctx, benchmark, answers)
    own = fingerprint(imported=list(texts), benchmark=benchmark_fingerprint(ctx, benchmark.name), code=CODE)
    lineage: dict[str, Any] = {
        "fingerprint": own,
        "input_fingerprint": own,
        "inputs": [],
        "code_version": CODE,
        "run_id": ctx.run_id,
    }
    partition = {"recipe": name, "benchmark": benchmark.name}
    for table, content in (("answers", answers), ("evaluation", rows)):
        data = pa.Table.from_pylist(content, schema=TABLES[table].arrow_schema())
        publish_checked(ctx, table, partition, data, metadata=metadata, **lineage)
    return metadata


def imported_metrics(ctx: Context, benchmark: Benchmark, name: str) -> list[str]:
    """Metrics of imported answers over all questions with their intervals, in words; the headline first."""
    stored = ctx.store.read_partition("evaluation", {"recipe": name, "benchmark": benchmark.name})
    return [metric_text(row) for row in stored.sort_by("position").to_pylist() if not row["category"]]
