"""What of a benchmark stands in the training rows: equal images, near-duplicate images, and texts."""

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Literal

from vsel_platform.errors import ConfigError
from vsel_platform.evaluation.near_images import NearImage
from vsel_platform.evaluation.text_overlap import NgramIndex, contains, ngrams, words

Kind = Literal["image", "near_image", "ngram", "question"]
KINDS: tuple[Kind, ...] = ("image", "near_image", "ngram", "question")

N_WORDS = 13
# An n-gram of more questions than these is an instruction of the benchmark, no content of a question.
TEMPLATE_QUESTIONS = 10
MAX_PER_QUESTION = 10
_BLOCK_CHARACTERS = 4_000_000

# How LLaVA-1.5's data and benchmarks ask for the form of an answer (arXiv 2310.03744, appendix): the same words in
# every question.
FORMAT_SENTENCES = (
    "Answer the question using a single word or phrase.",
    "Answer with the option's letter from the given choices directly.",
    "Please answer yes or no.",
    "Provide a one-sentence caption for the provided image.",
)


@dataclass(frozen=True, slots=True)
class BenchmarkText:
    """A question of a benchmark: identities (sha256) of its images, its text, its right answers."""

    question_id: str
    image_ids: tuple[str, ...]
    question: str
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TrainingText:
    """A training row: identities (sha256) of its images, its conversation as (role, text)."""

    sample_id: str
    image_ids: tuple[str, ...]
    turns: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """A question that stands in the training rows.

    image: a row shows an image of the question (value: how many rows show it; sample_id is the first by id).
    near_image: a training image nearly is an image of the question (value: cosine). ngram: a row shares n-grams with
    question and answer (value: how many distinct ones). question: a row about the same image asks the same short
    question and gives the same answer (value: words of both).
    """

    question_id: str
    kind: Kind
    sample_id: str | None
    image_id: str | None
    value: float


@dataclass(frozen=True, slots=True)
class LeakCount:
    """Questions with a finding of a kind, and all pairs of a question and what it was found in."""

    kind: Kind
    n_questions: int
    n_pairs: int


@dataclass(frozen=True, slots=True)
class Leakage:
    """Findings by question, kind and strength: at most ten of a kind for a question, `counts` has all.

    n_affected: questions with any finding. n_templates: n-grams of so many questions that they were not looked for.
    """

    n_questions: int
    n_rows: int
    n_affected: int
    n_templates: int
    counts: tuple[LeakCount, ...]
    findings: tuple[Finding, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and tables."""
        return asdict(self)


def find_leaks(
    questions: Sequence[BenchmarkText],
    rows: Iterable[TrainingText],
    near: Iterable[NearImage] = (),
    *,
    n_words: int = N_WORDS,
    template_questions: int = TEMPLATE_QUESTIONS,
) -> Leakage:
    """Everything of `questions` that the training rows hold; rows are read once, in blocks.

    Texts are compared as words (`text_overlap`), without sentences about the form of the answer. A question of which
    question and answer have `n_words` or more leaks by an n-gram of `n_words`; a shorter one only where the whole of
    it and the answer stand in a row that shows the same image, or a nearly equal one of `near`: "what colour is the
    car" is in every dataset. Independent of the order of the rows. Raises ConfigError if `n_words` is below 1.
    """
    if n_words < 1:
        raise ConfigError(f"n_words is {n_words}; an n-gram has at least one word")
    found = _Findings()
    search = _TextSearch(questions, n_words, template_questions)
    by_image: dict[str, list[int]] = {}
    for number, question in enumerate(questions):
        for image in dict.fromkeys(question.image_ids):
            by_image.setdefault(image, []).append(number)
    alike: dict[str, set[int]] = {}
    for pair in near:
        for number in by_image.get(pair.benchmark_image, ()):
            alike.setdefault(pair.train_image, set()).add(number)
            found.add(number, "near_image", None, pair.train_image, pair.cosine)
    showing: dict[tuple[int, str], tuple[int, str]] = {}
    n_rows = 0
    for block in _blocks(rows):
        n_rows += len(block)
        for row in block:
            same = {(number, image) for image in row.image_ids for number in by_image.get(image, ())}
            for key in same:
                count, first = showing.get(key, (0, row.sample_id))
                showing[key] = count + 1, min(first, row.sample_id)
            about = {number for number, _ in same}.union(*(alike.get(image, ()) for image in row.image_ids))
            for number in about & search.short.keys():
                if search.asks(number, row):
                    found.add(number, "question", row.sample_id, None, search.short_words(number))
        for number, sample, value in search.shared(block):
            found.add(number, "ngram", sample, None, value)
    for (number, image), (count, sample) in showing.items():
        found.add(number, "image", sample, image, count)
    return found.result(questions, n_rows, search.n_templates)


def _blocks(rows: Iterable[TrainingText]) -> Iterator[list[TrainingText]]:
    block: list[TrainingText] = []
    size = 0
    for row in rows:
        block.append(row)
        size += sum(len(text) for _, text in row.turns)
        if size >= _BLOCK_CHARACTERS:
            yield block
            block, size = [], 0
    if block:
        yield block


def _content(text: str) -> str:
    """A text without image tags and sentences about the form of the answer."""
    for part in ("<image>", *FORMAT_SENTENCES):
        text = text.replace(part, " ")
    return text


class _TextSearch:
    """Texts of a benchmark, ready to be found. short: words of question and answers, of too short questions."""

    def __init__(self, questions: Sequence[BenchmarkText], n_words: int, template_questions: int) -> None:
        self.short: dict[int, tuple[list[str], list[list[str]]]] = {}
        owners: dict[str, list[int]] = {}
        for number, question in enumerate(questions):
            answers = tuple(dict.fromkeys(question.answers))
            texts = [_content(f"{question.question} {answer}") for answer in answers or ("",)]
            grams = ngrams(texts, n_words)
            for gram in grams:
                owners.setdefault(gram, []).append(number)
            if not grams:
                self.short[number] = words(_content(question.question)), [words(answer) for answer in answers]
        self._owners = {gram: of for gram, of in owners.items() if len(of) <= template_questions}
        self.n_templates = len(owners) - len(self._owners)
        self._index = NgramIndex(self._owners, n_words)

    def short_words(self, number: int) -> int:
        """Words of a short question and its longest answer."""
        question, answers = self.short[number]
        return len(question) + max(map(len, answers), default=0)

    def asks(self, number: int, row: TrainingText) -> bool:
        """Whether a turn of the row holds the whole short question, and the next turn one of the answers."""
        question, answers = self.short[number]
        turns = [words(_content(text)) for _, text in row.turns]
        pairs = zip(turns, islice(turns, 1, None), strict=False)
        return any(contains(asked, question) and any(contains(told, one) for one in answers) for asked, told in pairs)

    def shared(self, block: Sequence[TrainingText]) -> Iterator[tuple[int, str, int]]:
        """(question, sample_id, number of distinct n-grams) that questions and rows share."""
        texts = [_content(" ".join(text for _, text in row.turns)) for row in block]
        for row, grams in self._index.search(texts).items():
            counts = Counter(number for gram in grams for number in self._owners[gram])
            for number, count in counts.items():
                yield number, block[row].sample_id, count


class _Findings:
    """The strongest findings of every question and kind, and the number of all."""

    def __init__(self) -> None:
        self._pairs: Counter[tuple[int, Kind]] = Counter()
        self._kept: dict[tuple[int, Kind], list[tuple[float, _Last, str | None, str | None]]] = {}

    def add(self, number: int, kind: Kind, sample_id: str | None, image_id: str | None, value: float) -> None:
        self._pairs[number, kind] += 1
        heap = self._kept.setdefault((number, kind), [])
        entry = (value, _Last((image_id or "", sample_id or "")), sample_id, image_id)
        if len(heap) < MAX_PER_QUESTION:
            heapq.heappush(heap, entry)
        else:
            heapq.heappushpop(heap, entry)

    def result(self, questions: Sequence[BenchmarkText], n_rows: int, n_templates: int) -> Leakage:
        findings = [
            Finding(questions[number].question_id, kind, sample, image, value)
            for (number, kind), heap in self._kept.items()
            for value, _, sample, image in heap
        ]
        order: Mapping[Kind, int] = {kind: place for place, kind in enumerate(KINDS)}
        findings.sort(
            key=lambda f: (f.question_id, order[f.kind], -f.value, f.image_id or "", f.sample_id or ""),
        )
        counts = []
        for kind in KINDS:
            sizes = [size for (_, other), size in self._pairs.items() if other == kind]
            counts.append(LeakCount(kind, len(sizes), sum(sizes)))
        affected = len({number for number, _ in self._pairs})
        return Leakage(len(questions), n_rows, affected, n_templates, tuple(counts), tuple(findings))


class _Last(tuple[str, str]):
    """Names in reverse order: of equal values the heap drops the last name first."""

    __slots__ = ()

    def __lt__(self, other: tuple[str, ...]) -> bool:
        return tuple(self) > tuple(other)
