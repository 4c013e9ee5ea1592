"""A-OKVQA evaluated by the loss of the options: rows that a model gets wrong, and how often by question type.

The data engine draws its examples from these rows with these weights. Source: benchmark specification, section 2.2
(step 1); `evaluate_on_AOKVQA` of MLLM-DataEngine, tag version1.0.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vsel_platform.errors import DataError
from vsel_platform.evaluation.formats.choices import letter_of, options_line

IMAGES = "val2017/{image_id:012d}.jpg"
RELEASED_DECIMALS = 3

Row = Mapping[str, Any]


def loss_prompt(row: Row) -> str:
    """Text before the option that is scored; `<image>` stands where the image belongs."""
    return (
        f"###Human: <img><image></img> {row['question']}\n{options_line(row['choices'])}\n###Assistant: The answer is"
    )


def option_texts(row: Row) -> list[str]:
    """Texts `(A) option` whose loss is compared, in the order of the options."""
    return [f"({letter_of(place)}) {choice}" for place, choice in enumerate(row["choices"])]


def answer_of_least_loss(row: Row, losses: Sequence[float | None]) -> str | None:
    """Option text of the least mean token loss [nat/token], the first of equal ones.

    None if a loss is missing or not finite: the options cannot be compared then. Raises DataError for another number
    of losses than options.
    """
    if len(losses) != len(row["choices"]):
        raise DataError(
            f"question {row['question_id']}: {len(losses)} losses for {len(row['choices'])} options; score every option"
        )
    known = [loss for loss in losses if loss is not None and math.isfinite(loss)]
    if len(known) < len(losses):
        return None
    return str(row["choices"][known.index(min(known))])


def evaluated_rows(
    rows: Sequence[Row], answers: Mapping[str, str | None], *, images: str = IMAGES, released: bool = False
) -> list[dict[str, Any]]:
    """Rows with the model's answer (fields of the released `aokvqa_eval.json`), in string order of question id.

    rows: A-OKVQA entries with `question_type` and `prompt`. answers: option text by question id; a row without one was
    not evaluated and is left out. released: leaves out the last row of the file too, because the released slice of the
    last process ends one row early. Raises DataError for a row without a field or a right option.
    """
    taken = list(rows)[: len(rows) - 1] if released else rows
    found = []
    for row in sorted(taken, key=lambda row: str(row["question_id"])):
        answer = answers.get(str(row["question_id"]))
        if answer is not None:
            found.append(_evaluated(row, answer, images))
    return found


def bad_cases(
    rows: Sequence[Row], answers: Mapping[str, str | None], *, images: str = IMAGES, released: bool = False
) -> dict[str, list[dict[str, Any]]]:
    """Wrongly answered rows of every question type that has evaluated rows; arguments as `evaluated_rows`."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in evaluated_rows(rows, answers, images=images, released=released):
        pool = found.setdefault(row["question_type"], [])
        if not _is_right(row):
            pool.append(row)
    return found


def type_weights(rows: Sequence[Row], answers: Mapping[str, str | None], *, released: bool = False) -> dict[str, float]:
    """Share of wrong answers of every question type that has evaluated rows; rounded to 3 decimals if `released`."""
    wrong: dict[str, list[bool]] = {}
    for row in evaluated_rows(rows, answers, released=released):
        wrong.setdefault(row["question_type"], []).append(not _is_right(row))
    shares = {name: sum(found) / len(found) for name, found in wrong.items()}
    return {name: round(share, RELEASED_DECIMALS) for name, share in shares.items()} if released else shares


def _is_right(row: Row) -> bool:
    return bool(row["model_answer"] == row["choices"][row["correct_choice_idx"]])


def _evaluated(row: Row, answer: str, images: str) -> dict[str, Any]:
    try:
        found = {
            "image_id": row["image_id"],
            "image_path": images.format(image_id=int(row["image_id"])),
            "idx": row["question_id"],
            "question": row["question"],
            "choices": row["choices"],
            "correct_choice_idx": row["correct_choice_idx"],
            "direct_answers": row["direct_answers"],
            "difficult_direct_answer": row["difficult_direct_answer"],
            "model_answer": answer,
            "question_type": row["question_type"],
            "prompt": row["prompt"],
        }
    except (KeyError, ValueError) as error:
        raise DataError(
            f"question {row.get('question_id')}: field {error} is missing or wrong; classify A-OKVQA's rows first"
        ) from error
    if not 0 <= row["correct_choice_idx"] < len(row["choices"]):
        raise DataError(f"question {row['question_id']}: 'correct_choice_idx' is beyond the options; correct the row")
    return found
