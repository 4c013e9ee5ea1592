"""What models are asked at present, and which former answers to it still hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any

from vsel_platform.evaluation.benchmark import EMBEDDED, Question
from vsel_platform.identity import fingerprint
from vsel_platform.models.images import ContentFailure, attempt_image
from vsel_platform.pipeline.benchmarks import Benchmark, benchmark_fingerprint, read_benchmark
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.models import vlm_fingerprint

ASKED = "asked_under"
"""Key of the metadata of a stored evaluation that has its `asked_under`."""


def asked_under(ctx: Context, benchmark: str, code: str) -> str:
    """Names what all models are asked at present, and how answers are read: evaluations with the same are comparable.

    Base model, questions, images by name and size, `compat`, `code` that asks; not the checkpoint.
    """
    return fingerprint(
        vlm=vlm_fingerprint(ctx.project.vlm),
        benchmark=benchmark_fingerprint(ctx, benchmark),
        images=image_state(ctx, benchmark),
        compat=ctx.project.benchmark(benchmark).compat,
        code=code,
    )


@dataclass(frozen=True)
class _Questions:
    """Questions of a benchmark, equal if content and places are."""

    fingerprint: str
    places: tuple[str, ...]
    ctx: Context = field(compare=False)
    name: str = field(compare=False)


def image_state(ctx: Context, benchmark: str) -> str:
    """Names and sizes of the image files of all questions.

    No image is read, and the questions once in a process: whether an evaluation is current is asked often.
    """
    settings = ctx.project.benchmark(benchmark)
    places = tuple(ctx.project.resolve(path) for path in (settings.questions, settings.image_root))
    bare, images = _files(_Questions(benchmark_fingerprint(ctx, benchmark), places, ctx, benchmark))
    return replace(bare).image_state(images)  # a copy: a benchmark remembers what it has seen


@lru_cache(maxsize=16)
def _files(questions: _Questions) -> tuple[Benchmark, tuple[str, ...]]:
    """The benchmark without its questions, and names of its image files; embedded ones are part of the questions."""
    benchmark = read_benchmark(questions.ctx, questions.name)
    images = dict.fromkeys(image for question in benchmark.questions for image in question.images)
    return replace(benchmark, questions=()), tuple(image for image in images if not image.startswith(EMBEDDED))


def usable_answers(benchmark: Benchmark, rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Former answers (rows of `answers`), by question, that asking again would give again.

    They are about the images that there are now, and a failure among them would come again; that is found out
    without a model.
    """
    questions = {question.question_id: question for question in benchmark.questions}
    found: dict[str, dict[str, Any]] = {}
    failed: dict[str, dict[str, Any]] = {}
    for row in rows:
        question = questions.get(row["question_id"])
        if question is not None and row["image_state"] == benchmark.image_state(question.images):
            (found if row["failure"] is None else failed)[row["question_id"]] = row
    again = {name: row for name, row in failed.items() if name not in found and _fails(benchmark, questions[name], row)}
    return found | again


def _fails(benchmark: Benchmark, question: Question, row: Mapping[str, Any]) -> bool:
    """Whether a failure would come again: what a template cannot write stays so, an image may be readable now."""
    if not row["failure"].startswith("image_"):
        return True
    tried = (attempt_image(image, partial(benchmark.image, image)) for image in question.images)
    return any(isinstance(image, ContentFailure) for image in tried)
