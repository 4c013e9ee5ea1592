"""POPE: is an object in the image, yes or no; objects drawn at random, by frequency, or to mislead.

Source: benchmark specification, section 5.7; LLaVA's `eval_pope.py`. Papers report the mean F1 of the three categories.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vsel_platform.errors import DataError
from vsel_platform.evaluation.benchmark import BenchmarkFiles, BenchmarkFormat, Compat, Judgement, Measure, Question
from vsel_platform.evaluation.formats.annotation_files import Entry, check_unique, read_entries
from vsel_platform.evaluation.formats.choices import SHORT_SENTENCE, read_yes_no, user_turn

FILE_START = "coco_pope_"
_NEGATIONS = {"No", "no", "not"}
# Columns of the statistics: true and false positives, false and true negatives, all questions.
_COUNTS = 5


class Pope(BenchmarkFormat):
    """POPE. "llava" and "official" are the same: everything without a negation means yes (`parse_answer`).

    "robust" looks for the words yes and no. An answer that is missing or unclear is wrong: for a "yes" question it is
    a false negative, for a "no" question it counts in the accuracy only.
    """

    name = "pope"
    compats: tuple[Compat, ...] = ("llava", "official", "robust")
    headline = "f1"
    max_new_tokens = 128
    takes_annotations = True

    def files(self, files: BenchmarkFiles) -> list[str]:
        """The files with the labels, after LLaVA's questions if there are. Raises DataError without labels."""
        if files.annotations is None:
            return [str(path) for path in _label_files(files.questions)]
        return [files.questions, *(str(path) for path in _label_files(files.annotations))]

    def read(self, files: BenchmarkFiles) -> list[Question]:
        """Questions of the directory with `coco_pope_{random,popular,adversarial}.json`, ids `category/id`.

        Or those of LLaVA's `llava_pope_test.jsonl`, with that directory as annotations: labels belong to questions by
        their order within a category; other numbers or other images raise DataError, as does a wrong file.
        """
        if files.annotations is None:
            found = [
                _question(entry, entry, category, f"{category}/{entry.identifier('question_id')}", SHORT_SENTENCE)
                for category, entries in read_labels(files.questions).items()
                for entry in entries
            ]
            return check_unique(files.questions, found)
        labels = {category: iter(entries) for category, entries in read_labels(files.annotations).items()}
        found = []
        for entry in read_entries(files.questions):
            category = entry.text("category")
            label = next(labels[category], None) if category in labels else None
            if label is None:
                raise entry.error(f"{files.annotations} has no label left for category {category!r}; {_MATCHING}")
            found.append(_question(entry, label, category, entry.identifier("question_id")))
        rest = next((category for category, entries in labels.items() if next(entries, None)), None)
        if rest is not None:
            raise DataError(f"{files.annotations}, category {rest}: has labels without a question; {_MATCHING}")
        return check_unique(files.questions, found)

    def judge(self, questions: Sequence[Question], texts: Sequence[str | None], compat: Compat) -> list[Judgement]:
        """Yes or no."""
        found = []
        for question, text in zip(questions, texts, strict=True):
            parsed = read_yes_no(text) if compat == "robust" else None if text is None else parse_answer(text)
            found.append(Judgement(parsed, float(parsed == question.answers[0])))
        return found

    def measures(self, questions: Sequence[Question], judgements: Sequence[Judgement], compat: Compat) -> list[Measure]:
        """`f1`, `accuracy`, `precision`, `recall`, `yes_ratio` [percent]: mean of the categories, then each category.

        Precision and F1 are 0 if no answer is yes but the labels have one; recall is not defined without such a label.
        """
        counts = _counts(questions, judgements)
        categories = sorted({question.category for question in questions})
        blocks = {
            category: counts * np.array([[question.category == category] for question in questions])
            for category in categories
        }
        every = np.concatenate(list(blocks.values()), axis=1) if blocks else np.zeros((0, _COUNTS))
        found = []
        for name in ("f1", "accuracy", "precision", "recall", "yes_ratio"):
            found.append(Measure(name, "", "percent", every, _Mean(name)))
            found += [Measure(name, category, "percent", block, _Mean(name)) for category, block in blocks.items()]
        return found

    def upload(self, questions: Sequence[Question], texts: Sequence[str | None]) -> dict[str, bytes]:
        """Nothing: the answers are public."""
        return {}


_MATCHING = "give the annotations that belong to the question file"


def parse_answer(text: str) -> str:
    """Which of yes and no: no if a word of the first sentence, without commas, is No, no or not."""
    return "no" if _NEGATIONS & set(text.split(".", maxsplit=1)[0].replace(",", "").split(" ")) else "yes"


def read_labels(directory: str) -> dict[str, list[Entry]]:
    """Entries `{question_id, image, text, label}` by category. Raises DataError for a directory without such files."""
    return {path.stem.removeprefix(FILE_START): read_entries(path) for path in _label_files(directory)}


def _label_files(directory: str) -> list[Path]:
    paths = sorted([*Path(directory).glob(f"{FILE_START}*.json"), *Path(directory).glob(f"{FILE_START}*.jsonl")])
    if not paths:
        raise DataError(
            f"{directory}: holds no {FILE_START}*.json; give the directory with the published files of POPE"
        )
    return paths


def _question(entry: Entry, label: Entry, category: str, question_id: str, sentence: str | None = None) -> Question:
    image, answer = entry.text("image"), label.text("label").lower()
    if answer not in ("yes", "no"):
        raise label.error(f"'label' is {answer!r}, not yes or no; use the published file unchanged")
    if label.values.get("image", image) != image:
        raise label.error(f"is about {label.values['image']}, the question in its place about {image}; {_MATCHING}")
    text = entry.text("text")
    return Question(
        question_id=question_id,
        turns=user_turn(text if sentence is None else f"{text}\n{sentence}"),
        images=(image,),
        answers=(answer,),
        cluster=image,
        choices=("yes", "no"),
        category=category,
    )


def _counts(questions: Sequence[Question], judgements: Sequence[Judgement]) -> NDArray[np.float64]:
    counts = np.zeros((len(questions), _COUNTS))
    places: Mapping[tuple[str, str | None], int] = {
        ("yes", "yes"): 0, ("no", "yes"): 1, ("yes", "no"): 2, ("yes", None): 2, ("no", "no"): 3,
    }  # fmt: skip
    for row, (question, judgement) in enumerate(zip(questions, judgements, strict=True)):
        place = places.get((question.answers[0], judgement.parsed))
        counts[row, -1] = 1.0
        if place is not None:
            counts[row, place] = 1.0
    return counts


@dataclass(frozen=True, slots=True)
class _Mean:
    """Mean over categories of one metric of their counts, sums [..., categories * 5] to [...]."""

    metric: str

    def __call__(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        tp, fp, fn, tn, n = np.moveaxis(sums.reshape(*sums.shape[:-1], -1, _COUNTS), -1, 0)
        parts = {
            "f1": (2 * tp, 2 * tp + fp + fn),
            "accuracy": (tp + tn, n),
            "precision": (tp, np.where(tp + fp > 0, tp + fp, tp + fn)),
            "recall": (tp, tp + fn),
            "yes_ratio": (tp + fp, n),
        }
        numerator, denominator = parts[self.metric]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(denominator > 0, 100.0 * numerator / denominator, np.nan)
        mean: NDArray[np.float64] = ratio.mean(axis=-1) if ratio.shape[-1] else np.full(ratio.shape[:-1], np.nan)
        return mean


FORMAT = Pope()
