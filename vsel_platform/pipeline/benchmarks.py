"""The benchmarks of a project: questions, where their images lie, and what names their content."""

import base64
import binascii
import hashlib
import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from vsel_platform.config_evaluation import BASE, BenchmarkSettings
from vsel_platform.errors import ConfigError, DataError
from vsel_platform.evaluation.benchmark import BenchmarkFiles, BenchmarkFormat, Question
from vsel_platform.evaluation.formats.registry import benchmark_format
from vsel_platform.identity import fingerprint
from vsel_platform.pipeline.context import Context
from vsel_platform.selection.stable_hash import stable_uniform

if TYPE_CHECKING:
    from PIL.Image import Image

SEPARATOR = ":"
MAX_PIXELS = 100_000_000


def evaluation_key(recipe: str, benchmark: str) -> str:
    """Key of the evaluation of a recipe's checkpoint on a benchmark."""
    return f"{recipe}{SEPARATOR}{benchmark}"


def split_key(ctx: Context, key: str) -> tuple[str, str]:
    """(recipe, benchmark) of an evaluation's key. Raises ConfigError for one that the project does not have."""
    recipe, _, benchmark = key.partition(SEPARATOR)
    if recipe != BASE:
        ctx.project.recipe(recipe)
    ctx.project.benchmark(benchmark)
    return recipe, benchmark


@dataclass(frozen=True)
class Benchmark:
    """A benchmark that was read: its questions (those that are asked), and where their images lie."""

    name: str
    settings: BenchmarkSettings
    format: BenchmarkFormat
    questions: tuple[Question, ...]
    image_root: str

    @property
    def clusters(self) -> list[str]:
        """Cluster of every question."""
        return [question.cluster for question in self.questions]

    @property
    def max_new_tokens(self) -> int:
        """Longest answer [tokens]."""
        return self.settings.max_new_tokens or self.format.max_new_tokens

    def image_bytes(self, image: str) -> bytes:
        """The file of an image. Raises DataError if it is missing or lies outside the image root."""
        if image.startswith("data:"):
            try:
                return base64.b64decode(image.partition(",")[2], validate=True)
            except binascii.Error as error:
                raise DataError(f"benchmark {self.name}: an embedded image is no base64: {error}") from error
        root = Path(self.image_root).resolve()
        path = (root / image).resolve()
        if not path.is_relative_to(root):
            raise DataError(f"benchmark {self.name}: image {image} lies outside of {root}")
        try:
            return path.read_bytes()
        except OSError as error:
            raise DataError(f"benchmark {self.name}: image {image}: {error.strerror}") from error

    def image(self, image: str) -> "Image":
        """An image, decoded to RGB. Raises DataError if it is missing or cannot be decoded."""
        from PIL import Image

        data = self.image_bytes(image)
        what = "an embedded image" if image.startswith("data:") else image
        try:
            with Image.open(io.BytesIO(data)) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise DataError(f"benchmark {self.name}: {what}: {picture.width} x {picture.height} pixels")
                return picture.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(f"benchmark {self.name}: {what} cannot be decoded: {error}") from error


def read_benchmark(ctx: Context, name: str) -> Benchmark:
    """The benchmark of that name. Raises ConfigError for a wrong setting, DataError for a wrong file."""
    settings = ctx.project.benchmark(name)
    found = benchmark_format(settings.format)
    if settings.compat not in found.compats:
        raise ConfigError(
            f"benchmarks.{name}.compat: {settings.format} has no {settings.compat}; it has {', '.join(found.compats)}"
        )
    resolve = ctx.project.resolve
    files = BenchmarkFiles(
        resolve(settings.questions), resolve(settings.annotations) if settings.annotations else None, settings.options
    )
    questions = found.read(files)
    _require_distinct(name, questions)
    if not questions:
        raise DataError(f"benchmark {name}: {files.questions} has no questions")
    return Benchmark(name, settings, found, tuple(_chosen(questions, settings.rows)), resolve(settings.image_root))


def benchmark_fingerprint(ctx: Context, name: str) -> str:
    """Names the questions and the way in which answers are given: files, settings; not where the files lie."""
    settings = ctx.project.benchmark(name)
    places = [ctx.project.resolve(path) for path in (settings.questions, settings.annotations) if path]
    own = settings.model_dump(exclude={"questions", "annotations", "image_root", "compat"})
    return fingerprint(files=[_digest_of(Path(place)) for place in places], settings=own)


def _chosen(questions: list[Question], limit: int) -> list[Question]:
    """Whole clusters, in an order that does not depend on the others, until there are `limit` questions."""
    if not limit or limit >= len(questions):
        return questions
    sizes: dict[str, int] = {}
    for question in questions:
        sizes[question.cluster] = sizes.get(question.cluster, 0) + 1
    names = sorted(sizes)
    place = dict(zip(names, stable_uniform(0, names), strict=True))
    kept: set[str] = set()
    count = 0
    for name in sorted(names, key=lambda name: (place[name], name)):
        if count >= limit:
            break
        kept.add(name)
        count += sizes[name]
    return [question for question in questions if question.cluster in kept]


def _require_distinct(name: str, questions: list[Question]) -> None:
    seen: set[str] = set()
    for question in questions:
        if question.question_id in seen:
            raise DataError(f"benchmark {name}: question_id {question.question_id!r} stands there twice")
        seen.add(question.question_id)


def _digest_of(path: Path) -> list[tuple[str, str]]:
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return [(file.relative_to(path).as_posix(), _file_digest(file)) for file in files]
    return [("", _file_digest(path))]


def _file_digest(path: Path) -> str:
    try:
        state = path.stat()
    except OSError as error:
        raise DataError(f"benchmark: {path}: {error.strerror}; check `benchmarks` in the project file") from error
    return _digest(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=256)
def _digest(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
