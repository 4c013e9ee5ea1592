"""A-OKVQA: questions that need knowledge, answered by one of four options (MC) and in free words (DA).

Source: benchmark specification, section 5.9; the benchmark's own `eval_predictions.py`.
"""

import json
from collections.abc import Mapping, Sequence

import numpy as np

from vsel_platform.errors import ConfigError
from vsel_platform.evaluation.benchmark import (
    BenchmarkFiles,
    BenchmarkFormat,
    Compat,
    Judgement,
    Measure,
    OptionKind,
    Question,
    ratio_measure,
)
from vsel_platform.evaluation.formats.annotation_files import Entry, check_unique, read_entries
from vsel_platform.evaluation.formats.choices import (
    LETTER_SENTENCE,
    LETTERS,
    SHORT_SENTENCE,
    lettered,
    read_option,
    user_turn,
)

SETTINGS = ("multiple_choice", "direct_answer")
IMAGES = "val2017/{image_id:012d}.jpg"
_MATCHES = 3


class AOkvqa(BenchmarkFormat):
    """A-OKVQA in both settings, with the prompts of LLaVA's training data for it.

    "llava" and "official" are the same: an option counts by its exact text or its bare letter, a direct answer by the
    exact texts of the annotators. "robust" reads the option out of a longer answer and compares direct answers without
    case, outer blanks and a final period. A missing answer scores 0.
    """

    name = "aokvqa"
    compats: tuple[Compat, ...] = ("llava", "official", "robust")
    headline = "multiple_choice"
    max_new_tokens = 20
    options: Mapping[str, OptionKind] = {"setting": "text", "images": "text"}

    def read(self, files: BenchmarkFiles) -> list[Question]:
        """Questions of `aokvqa_v1p0_val.json`; each is asked in both settings, ids `question_id/multiple_choice` ...

        Option `setting` asks in one only and leaves the ids as they are; option `images` is the pattern of image names
        (default "val2017/{image_id:012d}.jpg"). Raises DataError for a wrong file, ConfigError for a wrong option.
        """
        setting = files.options.get("setting")
        if setting not in (None, *SETTINGS):
            raise ConfigError(f"benchmark aokvqa, option setting: {setting!r} is not one of {', '.join(SETTINGS)}")
        settings = SETTINGS if setting is None else (str(setting),)
        pattern = str(files.options.get("images", IMAGES))
        entries = read_entries(files.questions)
        found = [_question(entry, name, len(settings) > 1, pattern) for entry in entries for name in settings]
        return check_unique(files.questions, found)

    def judge(self, questions: Sequence[Question], texts: Sequence[str | None], compat: Compat) -> list[Judgement]:
        """The option's text, or the direct answer, and its score."""
        return [_judge(question, text, compat) for question, text in zip(questions, texts, strict=True)]

    def measures(self, questions: Sequence[Question], judgements: Sequence[Judgement], compat: Compat) -> list[Measure]:
        """`multiple_choice` and `direct_answer` [percent].

        The latter is without the questions that are marked as difficult to answer directly.
        """
        known = np.array([judgement.score is not None for judgement in judgements], dtype=np.float64)
        scores = np.array([judgement.score or 0.0 for judgement in judgements], dtype=np.float64)
        found = []
        for setting in SETTINGS:
            inside = known * np.array([_counts_in(question, setting) for question in questions], dtype=np.float64)
            found.append(ratio_measure(setting, scores * inside, inside))
        return found

    def upload(self, questions: Sequence[Question], texts: Sequence[str | None]) -> dict[str, bytes]:
        """`predictions_test.json` of the leaderboard: question id to its answers; unanswered questions are ""."""
        found: dict[str, dict[str, str]] = {}
        for question, text in zip(questions, texts, strict=True):
            setting = question.extra["setting"]
            chosen = _option(text, question.choices, "robust") if setting == "multiple_choice" else text
            found.setdefault(question.extra["question_id"], {})[setting] = chosen or ""
        return {"predictions_test.json": json.dumps(found, ensure_ascii=False, indent=1).encode()}


def _judge(question: Question, text: str | None, compat: Compat) -> Judgement:
    if question.extra["setting"] == "multiple_choice":
        option = _option(text, question.choices, compat)
        return Judgement(option, float(option == question.answers[0]) if question.answers else None)
    answer = _plain(text) if compat == "robust" and text is not None else text
    given: list[str | None] = [_plain(item) if compat == "robust" else item for item in question.answers]
    return Judgement(answer, min(1.0, given.count(answer) / _MATCHES) if given else None)


def _counts_in(question: Question, setting: str) -> bool:
    difficult = setting == "direct_answer" and question.extra["difficult_direct_answer"]
    return question.extra["setting"] == setting and not difficult


def _option(text: str | None, choices: Sequence[str], compat: Compat) -> str | None:
    if text is None or text in choices:
        return text
    if compat == "robust":
        letter = read_option(text, choices)
    else:
        letter = text if len(text) == 1 and text in LETTERS[: len(choices)] else None
    return None if letter is None else choices[LETTERS.index(letter)]


def _plain(text: str) -> str:
    return text.strip().removesuffix(".").strip().lower()


def _question(entry: Entry, setting: str, is_one_of_two: bool, pattern: str) -> Question:
    question_id, choices = entry.identifier("question_id"), entry.texts("choices")
    has_answers = entry.values.get("direct_answers") is not None
    answers: tuple[str, ...]
    if setting == "multiple_choice":
        text = f"{entry.text('question')}\n{lettered(choices)}\n{LETTER_SENTENCE}"
        is_known = entry.values.get("correct_choice_idx") is not None
        answers = (choices[entry.index("correct_choice_idx", len(choices))],) if is_known else ()
    else:
        text = f"{entry.text('question')}\n{SHORT_SENTENCE}"
        answers = entry.texts("direct_answers") if has_answers else ()
    image_id = entry.identifier("image_id")
    if not image_id.isdecimal():
        raise entry.error(f"'image_id' is {image_id!r}, not a number; use the published file unchanged")
    try:
        image = pattern.format(image_id=int(image_id))
    except (KeyError, ValueError, IndexError) as error:
        raise ConfigError(f"benchmark aokvqa, option images: {pattern!r} is no pattern with {{image_id}}") from error
    return Question(
        question_id=f"{question_id}/{setting}" if is_one_of_two else question_id,
        turns=user_turn(text),
        images=(image,),
        answers=answers,
        cluster=image_id,
        choices=choices if setting == "multiple_choice" else (),
        extra={
            "setting": setting,
            "question_id": question_id,
            "difficult_direct_answer": bool(entry.values.get("difficult_direct_answer", False)),
        },
    )


FORMAT = AOkvqa()
