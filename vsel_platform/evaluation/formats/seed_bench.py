"""SEED-Bench: questions of several types with four options, on images and on frames of videos.

Source: benchmark specification, section 5.1; LLaVA's `convert_seed_for_submission.py`.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vsel_platform.errors import ConfigError, DataError
from vsel_platform.evaluation.benchmark import (
    BenchmarkFiles,
    BenchmarkFormat,
    Compat,
    Judgement,
    Measure,
    OptionKind,
    Question,
    mean_measures,
    ratio_measure,
)
from vsel_platform.evaluation.formats.annotation_files import Entry, check_unique, read_entries, read_json
from vsel_platform.evaluation.formats.choices import LETTER_SENTENCE, LETTERS, lettered, read_option, user_turn

IMAGES = "SEED-Bench-image/{data_id}"
_CHOICES = ("choice_a", "choice_b", "choice_c", "choice_d")


class SeedBench(BenchmarkFormat):
    """SEED-Bench as LLaVA runs it: one generated answer per question.

    "llava" and "official" are the same: the answer must equal the letter, so "A." is wrong. "robust" reads the option
    out of a longer answer. Missing answers are wrong.
    """

    name = "seed_bench"
    compats: tuple[Compat, ...] = ("llava", "official", "robust")
    headline = "accuracy"
    max_new_tokens = 128
    options: Mapping[str, OptionKind] = {"images": "text", "video_images": "text"}
    takes_annotations = True

    def read(self, files: BenchmarkFiles) -> list[Question]:
        """Questions of `SEED-Bench.json`, or of LLaVA's `llava-seed-bench.jsonl` with the former as annotations.

        The json names no frames of videos, so its video questions are read only with option `video_images`, a pattern
        such as "SEED-Bench-video-image/{question_id}.png"; option `images` is the pattern of the others (default
        "SEED-Bench-image/{data_id}"). LLaVA's file names all images itself. Raises DataError for a wrong file,
        ConfigError for a wrong pattern.
        """
        path = files.annotations or files.questions
        types, entries = _annotation(path)
        if files.annotations is None:
            asked = [entry for entry in entries.values() if _pattern(entry, files.options) is not None]
            return check_unique(path, [_question(entry, types, _image(entry, files.options)) for entry in asked])
        found = []
        for line in read_entries(files.questions):
            annotated = entries.get(line.identifier("question_id"))
            if annotated is None:
                raise line.error(f"question {line.identifier('question_id')} is not in {path}; give matching files")
            found.append(_question(annotated, types, line.text("image"), line.text("text")))
        return check_unique(files.questions, found)

    def judge(self, questions: Sequence[Question], texts: Sequence[str | None], compat: Compat) -> list[Judgement]:
        """The option letter that was read; a letter without a right one has no score."""
        found = []
        for question, text in zip(questions, texts, strict=True):
            letters = LETTERS[: len(question.choices)]
            exact = text if text is not None and len(text) == 1 and text in letters else None
            parsed = read_option(text, question.choices) if compat == "robust" else exact
            score = float(parsed == question.answers[0]) if question.answers else None
            found.append(Judgement(parsed, score))
        return found

    def measures(self, questions: Sequence[Question], judgements: Sequence[Judgement], compat: Compat) -> list[Measure]:
        """`accuracy` of all and of every type, `accuracy_image` and `accuracy_video` [percent]."""
        known = np.array([judgement.score is not None for judgement in judgements], dtype=np.float64)
        scores = np.array([judgement.score or 0.0 for judgement in judgements], dtype=np.float64)
        found = mean_measures("accuracy", questions, judgements)
        for kind in ("image", "video"):
            inside = known * np.array([question.extra["data_type"] == kind for question in questions])
            found.append(ratio_measure(f"accuracy_{kind}", scores * inside, inside))
        return found

    def upload(self, questions: Sequence[Question], texts: Sequence[str | None]) -> dict[str, bytes]:
        """Lines `{"question_id", "prediction"}` in the order of the questions, "" where there is no answer."""
        lines = [
            json.dumps({"question_id": question.question_id, "prediction": text or ""})
            for question, text in zip(questions, texts, strict=True)
        ]
        return {"seed_bench.jsonl": "".join(line + "\n" for line in lines).encode()}


def _annotation(path: str) -> tuple[dict[str, str], dict[str, Entry]]:
    """Names of the types by id, entries by question id."""
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("questions"), list):
        raise DataError(f"{path}: has no list 'questions'; use the published SEED-Bench.json")
    names = content.get("question_type")
    if not isinstance(names, dict):
        raise DataError(f"{path}: has no table 'question_type'; use the published SEED-Bench.json")
    entries: dict[str, Entry] = {}
    for number, values in enumerate(content["questions"], start=1):
        entry = Entry(path, f"question {number}", values if isinstance(values, dict) else {})
        question_id = entry.identifier("question_id")
        if question_id in entries:
            raise entry.error(f"id {question_id} stands twice; remove one of the entries")
        entries[question_id] = entry
    return {str(number): name for name, number in names.items()}, entries


def _pattern(entry: Entry, options: Mapping[str, Any]) -> str | None:
    kind = entry.text("data_type")
    if kind not in ("image", "video"):
        raise entry.error(f"'data_type' is {kind!r}, not image or video; use the published file unchanged")
    return str(options.get("images", IMAGES)) if kind == "image" else options.get("video_images")


def _image(entry: Entry, options: Mapping[str, Any]) -> str:
    pattern = str(_pattern(entry, options))
    try:
        return pattern.format_map(dict(entry.values))
    except (KeyError, ValueError, IndexError, AttributeError) as error:
        raise ConfigError(
            f"{entry.path}, {entry.place}: the image pattern {pattern!r} cannot be filled ({error!r}); "
            "use fields of the entry, such as {data_id} or {question_id}"
        ) from error


def _question(entry: Entry, types: Mapping[str, str], image: str, text: str | None = None) -> Question:
    choices = tuple(entry.text(key) for key in _CHOICES)
    type_id = entry.identifier("question_type_id")
    if type_id not in types:
        raise entry.error(f"'question_type_id' {type_id} is not in 'question_type'; use the published file unchanged")
    answer = entry.text("answer") if entry.values.get("answer") is not None else ""
    if answer and answer not in LETTERS[: len(choices)]:
        raise entry.error(f"'answer' is {answer!r}, not one of A to D; use the published file unchanged")
    prompt = text or f"{entry.text('question')}\n{lettered(choices)}\n{LETTER_SENTENCE}"
    return Question(
        question_id=entry.identifier("question_id"),
        turns=user_turn(prompt),
        images=(image,),
        answers=(answer,) if answer else (),
        cluster=str(entry.values.get("data_id", image)),
        choices=choices,
        category=types[type_id],
        extra={"data_type": entry.text("data_type")},
    )


FORMAT = SeedBench()
