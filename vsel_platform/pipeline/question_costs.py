"""What asking the questions of a benchmark takes, told without a model: texts to generate, images that are there."""

import math
from pathlib import Path

from vsel_platform.errors import ConfigError, DataError
from vsel_platform.evaluation.benchmark import EMBEDDED
from vsel_platform.pipeline.benchmarks import Benchmark, read_benchmark
from vsel_platform.pipeline.context import Context


def model_passes(benchmark: Benchmark) -> int:
    """Texts that a model generates to answer all questions of a benchmark: one each, without self-questioning.

    With it a question about images costs a description, the own questions, their answers, the real answer, and the
    plain answers of the equal budget, of which there are as many as fit if every text is as long as it may be. So the
    generated tokens are an upper bound: most texts are shorter, and one image is described once.
    """
    with_images = sum(bool(question.images) for question in benchmark.questions)
    return len(benchmark.questions) + with_images * _own_passes(benchmark)


def _own_passes(benchmark: Benchmark) -> int:
    """Texts besides the real answer."""
    asking = benchmark.settings.self_questioning
    if not asking.questions:
        return 0
    asked = int(asking.describe) + 2 * asking.questions
    tokens = asking.questions * (asking.question_tokens + asking.answer_tokens)
    tokens += asking.describe * asking.answer_tokens + benchmark.max_new_tokens
    return asked + math.ceil(tokens / benchmark.max_new_tokens)


def require_images(benchmark: Benchmark) -> None:
    """Raises DataError if the questions are about image files of which none is there; no image is read."""
    images = {image for question in benchmark.questions for image in question.images if not image.startswith(EMBEDDED)}
    root = Path(benchmark.image_root)
    if images and not any(_is_there(root / image) for image in sorted(images)):
        raise DataError(
            f"benchmarks.{benchmark.name}.image_root: none of {len(images):,} images is there (the first is "
            f"{root / min(images)}); mend image_root, or the paths in the questions"
        )


def benchmark_problem(ctx: Context, name: str) -> str | None:
    """Why a benchmark cannot be asked about: a wrong setting or file, or images of which none is there."""
    try:
        require_images(read_benchmark(ctx, name))
    except (ConfigError, DataError) as error:
        return str(error)
    return None


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False
