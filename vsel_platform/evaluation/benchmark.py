"""What a benchmark is: questions, judgements of answers, and metrics that are functions of sums over questions."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Compat = Literal["llava", "official", "robust"]
EMBEDDED = "data:"
"""How an image that is no path begins."""
OptionKind = Literal["text", "flag", "path"]
"""What an option of a format is: a text, true or false, or the path of a file that the format reads."""


@dataclass(frozen=True, slots=True)
class BenchmarkFiles:
    """Local files of a benchmark, and the options of its format (one that is a path is such a file).

    annotations: the right answers, where they lie apart from the questions.
    """

    questions: str
    annotations: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Question:
    """One question of a benchmark.

    turns: the conversation up to the user's question, `(role, text)`; `<image>` stands where an image belongs.
    images: in the order of their tags; a path relative to the benchmark's image root, or a `data:` URI.
    answers: right answers; none where only a server knows them. choices: texts of the options, in order.
    category: task or type that metrics are split by. cluster: questions of one cluster (one image) are not
    independent, intervals resample whole clusters. extra: what the metric of a format needs besides.
    """

    question_id: str
    turns: tuple[tuple[str, str], ...]
    images: tuple[str, ...]
    answers: tuple[str, ...]
    cluster: str
    choices: tuple[str, ...] = ()
    category: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


def image_cluster(images: Sequence[str]) -> str:
    """Name of the cluster of questions about the same images: their paths, or hashes of embedded ones; "" for none."""
    return "\n".join(_short_name(image) if image.startswith(EMBEDDED) else image for image in images)


def _short_name(image: str) -> str:
    return hashlib.sha256(image.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What an answer was taken for (None: nothing could be read out of it) and its score in [0, 1] (None: unknown)."""

    parsed: str | None
    score: float | None


@dataclass(frozen=True, slots=True)
class Measure:
    """A metric as a function of sums over questions, so that intervals can resample the questions.

    statistics: float64 [questions, k], a row of zeros for a question that does not count in it. value: sums
    [..., k] to the metric [...], NaN where it is not defined. group: category, "" for all. unit: percent, points or
    nat/token. lower_is_better: losses.
    """

    name: str
    group: str
    unit: str
    statistics: NDArray[np.float64]
    value: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    lower_is_better: bool = False

    @property
    def estimate(self) -> float:
        """The metric over all questions."""
        return float(self.value(self.statistics.sum(axis=0)))

    @property
    def n_questions(self) -> int:
        """Questions that count in it."""
        return int(np.count_nonzero(self.statistics.any(axis=1)))


class BenchmarkFormat(Protocol):
    """A kind of benchmark, the base class of all of them.

    All functions are pure; `texts` are the model's answers, None where there is none.
    """

    name: str
    compats: tuple[Compat, ...]
    headline: str
    """Name of the measure (with group "") that a benchmark of this kind is ranked by."""
    max_new_tokens: int
    """Longest answer that the published evaluation allows [tokens]."""
    options: Mapping[str, OptionKind] = MappingProxyType({})
    """What may stand in the benchmark's `options`."""
    takes_annotations: bool = False
    """Whether the right answers may lie in a file or directory of their own."""

    def files(self, files: BenchmarkFiles) -> list[str]:
        """Paths of all files that `read` reads, in a fixed order: they decide what the questions are.

        By default those that the settings name. A format that reads files of a directory names them, and raises
        DataError where there is none.
        """
        paths = [files.options.get(name) for name, kind in sorted(self.options.items()) if kind == "path"]
        named = [files.questions, files.annotations if self.takes_annotations else None, *paths]
        return [str(path) for path in named if path is not None]

    def read(self, files: BenchmarkFiles) -> list[Question]:
        """Questions in the order of the file. Raises DataError that names file, entry and problem."""

    def judge(self, questions: Sequence[Question], texts: Sequence[str | None], compat: Compat) -> list[Judgement]:
        """A judgement per question."""

    def measures(self, questions: Sequence[Question], judgements: Sequence[Judgement], compat: Compat) -> list[Measure]:
        """All metrics, the headline first. Questions without a known answer count in none."""

    def upload(self, questions: Sequence[Question], texts: Sequence[str | None]) -> dict[str, bytes]:
        """Files for the benchmark's server, by name; empty where nothing is uploaded."""


def ratio_measure(
    name: str,
    numerators: NDArray[np.float64],
    denominators: NDArray[np.float64],
    *,
    group: str = "",
    unit: str = "percent",
    scale: float = 100.0,
    lower_is_better: bool = False,
) -> Measure:
    """`scale` * sum of `numerators` / sum of `denominators`, both float64 [questions]."""
    return Measure(name, group, unit, np.stack([numerators, denominators], axis=1), _Ratio(scale), lower_is_better)


@dataclass(frozen=True, slots=True)
class _Ratio:
    scale: float

    def __call__(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio: NDArray[np.float64] = np.where(sums[..., 1] > 0, self.scale * sums[..., 0] / sums[..., 1], np.nan)
        return ratio


def mean_measures(
    name: str, questions: Sequence[Question], judgements: Sequence[Judgement], *, by_category: bool = True
) -> list[Measure]:
    """Mean score in percent over the questions whose score is known: of all, then of every category (sorted)."""
    known = np.array([judgement.score is not None for judgement in judgements], dtype=np.float64)
    scores = np.array([judgement.score or 0.0 for judgement in judgements], dtype=np.float64)
    found = [ratio_measure(name, scores * known, known)]
    categories = np.array([question.category for question in questions], dtype=object)
    for category in sorted({question.category for question in questions} - {""}) if by_category else ():
        inside = known * (categories == category)
        found.append(ratio_measure(name, scores * inside, inside, group=category))
    return found
