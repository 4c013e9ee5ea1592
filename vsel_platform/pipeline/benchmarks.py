"""The benchmarks of a project: questions, where their images lie, and what names their content."""

import base64
import binascii
import errno
import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsel_platform.config_evaluation import BASE, BenchmarkSettings
from vsel_platform.errors import ConfigError, DataError
from vsel_platform.evaluation.benchmark import EMBEDDED, BenchmarkFiles, BenchmarkFormat, OptionKind, Question
from vsel_platform.evaluation.formats.registry import benchmark_format
from vsel_platform.identity import fingerprint
from vsel_platform.pipeline.context import Context
from vsel_platform.selection.stable_hash import stable_uniform

if TYPE_CHECKING:
    from PIL.Image import Image

SEPARATOR = ":"
MAX_PIXELS = 100_000_000
PASSING = frozenset((
    errno.EAGAIN, errno.EINTR, errno.EIO, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EMFILE, errno.ENETDOWN,
    errno.ENETRESET, errno.ENETUNREACH, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOTCONN, errno.ESTALE,
))  # fmt: skip
"""Faults of the storage or the machine that say nothing about a file (besides lost connections and time-outs)."""

ImageState = tuple[str, int | None]


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
    _states: dict[str, ImageState] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def clusters(self) -> list[str]:
        """Cluster of every question."""
        return [question.cluster for question in self.questions]

    @property
    def max_new_tokens(self) -> int:
        """Longest answer [tokens]."""
        return self.settings.max_new_tokens or self.format.max_new_tokens

    def image_bytes(self, image: str) -> bytes:
        """The file of an image.

        Raises DataError if it is missing or its path leads out of the image root, ConnectionError or TimeoutError for
        a fault of the storage that says nothing about the image.
        """
        if image.startswith(EMBEDDED):
            try:
                return base64.b64decode(image.partition(",")[2], validate=True)
            except binascii.Error as error:
                raise DataError(f"benchmark {self.name}: an embedded image is no base64: {error}") from error
        try:
            return (Path(self.image_root) / self._relative(image)).read_bytes()
        except (ConnectionError, TimeoutError):
            raise
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in PASSING:
                raise ConnectionError(error.errno, error.strerror, error.filename) from error
            problem = error.strerror if isinstance(error, OSError) else error
            raise DataError(f"benchmark {self.name}: image {image}: {problem}") from error

    def _relative(self, image: str) -> str:
        """Path of an image below the root. Only the path counts: links may lead to wherever the images are kept.

        Raises DataError for a path that leads out of the image root.
        """
        path = Path(os.path.normpath(self._roots[0] / image))
        for root in self._roots:
            if path.is_relative_to(root):
                return path.relative_to(root).as_posix()
        raise DataError(f"benchmark {self.name}: image {image} lies outside of {self._roots[0]}")

    @cached_property
    def _roots(self) -> tuple[Path, Path]:
        """The image root as it is named, and where it lies: absolute paths of images may begin with either."""
        root = Path(os.path.normpath(Path(self.image_root).absolute()))
        return root, root.resolve()

    def image_state(self, images: Sequence[str]) -> str:
        """Names the pictures that a question is answered about, by their paths below the root and their sizes.

        Nothing is read; a picture that is not there counts as such. Embedded ones count by their content.
        """
        return fingerprint(images=[self._state(image) for image in images])

    def _state(self, image: str) -> ImageState:
        if image not in self._states:
            if image.startswith(EMBEDDED):
                self._states[image] = (hashlib.sha256(image.encode()).hexdigest(), len(image))
            else:
                self._states[image] = self._file_state(image)
        return self._states[image]

    def _file_state(self, image: str) -> ImageState:
        name = image
        try:
            name = self._relative(image)
            return name, (Path(self.image_root) / name).stat().st_size
        except (DataError, OSError, ValueError):
            return name, None

    def image(self, image: str) -> "Image":
        """An image, decoded to RGB. Raises DataError if it is missing or cannot be decoded."""
        from PIL import Image

        data = self.image_bytes(image)
        what = "an embedded image" if image.startswith(EMBEDDED) else image
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
    found, files = _opened(ctx, name)
    if settings.compat not in found.compats:
        raise ConfigError(
            f"benchmarks.{name}.compat: {settings.format} has no {settings.compat}; it has {', '.join(found.compats)}"
        )
    _read_files(name, found, files)
    questions = found.read(files)
    _require_distinct(name, questions)
    if not questions:
        raise DataError(f"benchmark {name}: {files.questions} has no questions")
    place = Path(files.questions)
    root = ctx.project.resolve(settings.image_root) or str(place if place.is_dir() else place.parent)
    return Benchmark(name, settings, found, tuple(_chosen(questions, settings.rows)), root)


def benchmark_fingerprint(ctx: Context, name: str) -> str:
    """Names the questions and the way in which answers are given: files, settings; not where the files lie.

    Raises ConfigError for a wrong setting, DataError for a missing file.
    """
    settings = ctx.project.benchmark(name)
    found, files = _opened(ctx, name)
    own = settings.model_dump(exclude={"questions", "annotations", "image_root", "compat", "options"})
    options = {key: value for key, value in files.options.items() if found.options[key] != "path"}
    contents = [(role, _file_digest(path)) for role, path in _read_files(name, found, files)]
    return fingerprint(files=contents, settings=own, options=options)


def _opened(ctx: Context, name: str) -> tuple[BenchmarkFormat, BenchmarkFiles]:
    """Format and files of a benchmark. Raises ConfigError for an option that the format does not have."""
    settings, resolve = ctx.project.benchmark(name), ctx.project.resolve
    found = benchmark_format(settings.format)
    options: dict[str, Any] = {}
    for key, value in settings.options.items():
        place = f"benchmarks.{name}.options.{key}"
        kind = found.options.get(key)
        if kind is None:
            near = "".join(f"; did you mean {other}?" for other in get_close_matches(key, found.options, n=1))
            known = ", ".join(sorted(found.options)) or "none"
            raise ConfigError(f"{place}: {settings.format} has no such option{near} (known: {known})")
        if value is not None:
            if not isinstance(value, bool if kind == "flag" else str):
                raise ConfigError(f"{place}: {value!r} is not {_KINDS[kind]}")
            options[key] = resolve(str(value)) if kind == "path" else value
    annotations = resolve(settings.annotations) if settings.annotations else None
    return found, BenchmarkFiles(resolve(settings.questions), annotations, options)


_KINDS: Mapping[OptionKind, str] = {"text": "a text", "flag": "true or false", "path": "the path of a file"}


def _read_files(name: str, found: BenchmarkFormat, files: BenchmarkFiles) -> list[tuple[str, Path]]:
    """(role, path) of all files that are read; the role names the setting, and the place below its directory.

    Raises ConfigError for a setting that names what is not read, DataError as the format's `files`.
    """
    given = {"questions": files.questions}
    if files.annotations is not None:
        given["annotations"] = files.annotations
    paths = [key for key in sorted(files.options) if found.options[key] == "path"]
    given |= {f"options.{key}": str(files.options[key]) for key in paths}
    read = [Path(path) for path in found.files(files)]
    for role, place in given.items():
        if not any(path.is_relative_to(place) for path in read):
            raise ConfigError(
                f"benchmarks.{name}.{role}: {found.name} does not read it with {files.questions}; leave it out"
            )
    return [(_role(path, given), path) for path in read]


def _role(path: Path, given: Mapping[str, str]) -> str:
    for role, place in given.items():
        if path.is_relative_to(place):
            return f"{role}/{path.relative_to(place).as_posix()}"
    return path.name


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


def _file_digest(path: Path) -> str:
    try:
        state = path.stat()
        return _digest(path, state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise DataError(f"benchmark: {path}: {error.strerror}; check `benchmarks` in the project file") from error


@lru_cache(maxsize=4096)
def _digest(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
