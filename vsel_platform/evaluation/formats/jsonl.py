r"""A benchmark of your own: a JSON Lines file with one question per line.

Fields of a line:

* `question_id` (text or integer): unique in the file.
* `text`: the prompt. It may hold `<image>` where an image belongs, once per image; without, the images come first.
* `image` (path relative to the benchmark's image root, or a `data:` URI) or `images` (a list of them); none: text only.
* `answers`: the right answer or a list of them; left out where it is unknown (such questions are not scored).
* `choices`: texts of the options, in order. They are added to the prompt as lines "A. text" with LLaVA's sentence that
  asks for the letter. A right answer is then a letter or the text of an option.
* `metric`: `exact_match`, `contains`, `choice` or `vqa_soft`. Left out: `choice` with choices, else `exact_match`.
* `category`: metrics are also given per category. `cluster`: questions that are not independent of each other
  (default: those of the same images, or the question alone).

Other fields are allowed, but one that is nearly the name of a field that the line lacks (`answer`) is refused.

Metrics, all in [0, 1] per question: `exact_match`, the answer equals a right one; `contains`, a right answer stands in
it as whole words; `choice`, the option is the right one; `vqa_soft`, mean over the annotators (one right answer each)
of min(1, matches among the others / 3).

llava: answers without trailing dots in lower case; an option is its letter alone or "A. ..."; vqa_soft as LLaVA's
uploads are scored. official: answers as they are, without blanks at the ends; an option is its letter alone; vqa_soft
of the official VQA evaluation. robust: answers and right answers normalised; options read out of free text.

Option `upload`: "mmvet" writes `mm-vet.json`, `{"v1_<question_id>": answer}`, for a judge elsewhere.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches

from vsel_platform.errors import ConfigError
from vsel_platform.evaluation.benchmark import (
    BenchmarkFiles,
    BenchmarkFormat,
    Compat,
    Judgement,
    Measure,
    OptionKind,
    Question,
    image_cluster,
    mean_measures,
)
from vsel_platform.evaluation.formats.annotation_files import Entry, read_entries
from vsel_platform.evaluation.formats.choices import LETTER_SENTENCE, LETTERS, lettered, read_option
from vsel_platform.evaluation.formats.gqa import submitted
from vsel_platform.evaluation.text_benchmarks import all_questions, require_compat, to_json, unanswered
from vsel_platform.evaluation.vqa_normalise import ACCURACIES, normalise_answer

METRICS = ("exact_match", "contains", "choice", "vqa_soft")
UPLOADS = ("mmvet",)
FIELDS = ("question_id", "text", "image", "images", "answers", "choices", "metric", "category", "cluster")
NEAR = 0.8
"""Similarity (`difflib`) from which on the name of a field is taken for a mistyped one."""
IMAGE_TAG = "<image>"

_CLEANED: Mapping[str, Callable[[str], str]] = {
    "llava": lambda text: submitted(text.strip()),
    "official": str.strip,
    "robust": normalise_answer,
}
_LETTER_FIRST = re.compile(r"([A-H])(?:\. .*)?", re.DOTALL)


class JsonLinesFormat(BenchmarkFormat):
    """Questions, answers and metrics of one's own."""

    name = "jsonl"
    compats: tuple[Compat, ...] = ("llava", "official", "robust")
    headline = "accuracy"
    max_new_tokens = 128
    options: Mapping[str, OptionKind] = {"upload": "text"}

    def read(self, files: BenchmarkFiles) -> list[Question]:
        """Questions in the order of the file. Raises DataError that names entry and problem, ConfigError."""
        upload = files.options.get("upload")
        if upload is not None and upload not in UPLOADS:
            raise ConfigError(f"jsonl: option upload is {upload!r}; choose {' or '.join(UPLOADS)} or leave it out")
        entries = read_entries(files.questions, own=True)
        return all_questions(files.questions, [_question(entry, upload) for entry in entries])

    def judge(self, questions: Sequence[Question], texts: Sequence[str | None], compat: Compat) -> list[Judgement]:
        """Score by the metric of each question."""
        require_compat(self.name, compat, self.compats)
        return [
            unanswered(question) if text is None else _judgement(question, text, compat)
            for question, text in zip(questions, texts, strict=True)
        ]

    def measures(self, questions: Sequence[Question], judgements: Sequence[Judgement], compat: Compat) -> list[Measure]:
        """Mean score of all questions and per category."""
        return mean_measures("accuracy", questions, judgements)

    def upload(self, questions: Sequence[Question], texts: Sequence[str | None]) -> dict[str, bytes]:
        """`mm-vet.json` if option upload says so; "" where there is no answer."""
        if not questions or questions[0].extra["upload"] != "mmvet":
            return {}
        pairs = zip(questions, texts, strict=True)
        return {"mm-vet.json": to_json({f"v1_{question.question_id}": text or "" for question, text in pairs})}


def _question(entry: Entry, upload: str | None) -> Question:
    _require_names(entry)
    question_id, images = entry.identifier("question_id"), _images(entry)
    choices = entry.texts("choices") if "choices" in entry.values else ()
    metric = entry.values.get("metric", "choice" if choices else "exact_match")
    if metric not in METRICS:
        raise entry.error(f"'metric' is {metric!r}; choose one of {', '.join(METRICS)}")
    if len(choices) > len(LETTERS) or (metric == "choice" and len(choices) < 2):
        raise entry.error(f"{len(choices)} 'choices'; metric choice needs 2 to {len(LETTERS)}")
    answers = _answers(entry)
    if metric == "choice":
        answers = tuple(_letter(entry, answer, choices) for answer in answers)
    cluster = entry.identifier("cluster") if "cluster" in entry.values else image_cluster(images) or question_id
    return Question(
        question_id=question_id,
        turns=(("user", _prompt(entry, images, choices)),),
        images=images,
        answers=answers,
        cluster=cluster,
        choices=choices,
        category=entry.identifier("category") if "category" in entry.values else "",
        extra={"metric": metric, "upload": upload},
    )


def _require_names(entry: Entry) -> None:
    """Raises DataError for an unknown field that is nearly one that the line lacks: it would be left out silently."""
    images = {"image", "images"} if {"image", "images"} & entry.values.keys() else set()
    missing = [name for name in FIELDS if name not in entry.values and name not in images]
    for field in entry.values:
        near = get_close_matches(field.strip().lower(), missing, n=1, cutoff=NEAR) if field not in FIELDS else []
        if near:
            raise entry.error(f"{field!r} is no field; did you mean {near[0]!r}? Mend it, or give it another name")


def _images(entry: Entry) -> tuple[str, ...]:
    if "image" in entry.values and "images" in entry.values:
        raise entry.error("has both 'image' and 'images'; keep one")
    if "image" in entry.values:
        return (entry.text("image"),)
    return entry.texts("images") if "images" in entry.values else ()


def _answers(entry: Entry) -> tuple[str, ...]:
    value = entry.values.get("answers")
    if value is None:
        return ()
    return entry.texts("answers") if isinstance(value, list) else (entry.identifier("answers"),)


def _letter(entry: Entry, answer: str, choices: Sequence[str]) -> str:
    if answer in choices:
        return LETTERS[choices.index(answer)]
    if answer not in LETTERS[: len(choices)] or len(answer) != 1:
        raise entry.error(f"answer {answer!r} is neither a letter nor the text of an option")
    return answer


def _prompt(entry: Entry, images: Sequence[str], choices: Sequence[str]) -> str:
    text = entry.text("text")
    tags = text.count(IMAGE_TAG)
    if tags not in (0, len(images)):
        raise entry.error(f"'text' holds {tags} times {IMAGE_TAG} for {len(images)} images; once per image or never")
    if choices:
        text = f"{text}\n{lettered(choices)}\n{LETTER_SENTENCE}"
    return text if tags else f"{IMAGE_TAG}\n" * len(images) + text


def _judgement(question: Question, text: str, compat: Compat) -> Judgement:
    metric = question.extra["metric"]
    if metric == "choice":
        option = _option(text, question.choices, compat)
        return Judgement(option, float(option in question.answers) if question.answers else None)
    clean = _CLEANED[compat]
    found, answers = clean(text), [clean(answer) for answer in question.answers]
    if not answers:
        return Judgement(found, None)
    if metric == "vqa_soft":
        return Judgement(found, ACCURACIES[compat](text, question.answers))
    if metric == "contains":
        return Judgement(found, float(any(_stands_in(answer, found) for answer in answers)))
    return Judgement(found, float(found in answers))


def _option(text: str, choices: Sequence[str], compat: Compat) -> str | None:
    if compat == "robust":
        return read_option(text, choices)
    match = _LETTER_FIRST.fullmatch(text.strip())
    if match is None or match.group(1) not in LETTERS[: len(choices)]:
        return None
    return match.group(1) if compat == "llava" or len(text.strip()) == 1 else None


def _stands_in(answer: str, text: str) -> bool:
    return bool(answer) and re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", text) is not None


FORMAT = JsonLinesFormat()
