"""Metrics of one evaluation as rows of a table, with intervals."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vsel_platform.evaluation.benchmark import Judgement, Measure, Question, ratio_measure
from vsel_platform.evaluation.statistics import interval

LOSS = "loss"
HEADLINE = "headline"
"""Key of an evaluation's metadata with the headline metric in words."""


def loss_measures(questions: Sequence[Question], answers: Sequence[Mapping[str, Any]]) -> list[Measure]:
    """Mean loss of the right answers' tokens [nat/token], of all and per category; none if no loss is known.

    `answers` have `loss_sum` [nat] and `n_target_tokens`.
    """
    sums = np.array([answer["loss_sum"] or 0.0 for answer in answers], dtype=np.float64)
    counts = np.array([answer["n_target_tokens"] or 0 for answer in answers], dtype=np.float64)
    if not counts.any():
        return []
    categories = np.array([question.category for question in questions], dtype=object)
    found = []
    for group in ["", *sorted(set(categories) - {""})]:
        inside = np.ones(len(counts)) if group == "" else (categories == group).astype(np.float64)
        found.append(
            ratio_measure(
                LOSS, sums * inside, counts * inside, group=group, unit="nat/token", scale=1.0, lower_is_better=True
            )
        )
    return found


def metric_rows(
    questions: Sequence[Question],
    judgements: Sequence[Judgement],
    measures: Sequence[Measure],
    *,
    resamples: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Rows of the `evaluation` table: each metric with its 95 % interval over resampled clusters.

    n_questions: that count in the metric; n_unparsed: of them, answers out of which nothing could be read.
    """
    clusters = [question.cluster for question in questions]
    unparsed = np.array([judgement.parsed is None for judgement in judgements])
    rows = []
    for order, measure in enumerate(measures):
        found = interval(measure, clusters, n_resamples=resamples, seed=seed)
        counts = measure.statistics.any(axis=1)
        rows.append(
            {
                "measure": measure.name,
                "category": measure.group,
                "position": order,
                "value": _known(found.estimate),
                "low": _known(found.low),
                "high": _known(found.high),
                "unit": measure.unit,
                "lower_is_better": measure.lower_is_better,
                "n_questions": int(counts.sum()),
                "n_unparsed": int((counts & unparsed).sum()),
            }
        )
    return rows


def summary(headline: str, rows: Sequence[Mapping[str, Any]], answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The headline metric with its interval, in words and in numbers, and counts.

    `n_without_right_answer` is there if such questions are: they count in no metric.
    """
    found = next((row for row in rows if row["measure"] == headline and not row["category"]), None)
    unanswered = sum(answer["answer"] is None for answer in answers)
    unknown = sum(not answer["right_answers"] for answer in answers)
    counts = {
        "n_questions": len(answers),
        **({"n_without_right_answer": unknown} if unknown else {}),
        "n_not_answered": unanswered,
        "parse_failure_rate": sum(a["parsed"] is None for a in answers) / max(1, len(answers)),
        "tokens_per_answer": sum(answer["n_tokens"] for answer in answers) / max(1, len(answers) - unanswered),
    }
    if found is None or found["value"] is None:
        return counts
    values = {headline: found["value"], f"{headline}_low": found["low"], f"{headline}_high": found["high"]}
    return {HEADLINE: metric_text(found), **values, **counts}


def metric_text(row: Mapping[str, Any]) -> str:
    """A row of the `evaluation` table as "accuracy 33.3 % (28.1 to 38.6)": value, unit, 95 % interval."""
    form = ".3f" if row["unit"] == "nat/token" else ".1f"
    name = row["measure"].replace("_", " ")
    if row["value"] is None:
        return f"{name} is not defined"
    unit = "%" if row["unit"] == "percent" else row["unit"]
    known = row["low"] is not None and row["high"] is not None
    interval = f" ({row['low']:{form}} to {row['high']:{form}})" if known else ""
    return f"{name} {row['value']:{form}} {unit}{interval}"


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
