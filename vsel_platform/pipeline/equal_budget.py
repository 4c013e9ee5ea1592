"""Self-questioning against plain answering that generates as many tokens, from the traces of the answers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from vsel_platform.evaluation.benchmark import Judgement, Measure
from vsel_platform.evaluation.equal_budget import voted
from vsel_platform.evaluation.metric_rows import metric_rows
from vsel_platform.evaluation.promotion import difference_unit
from vsel_platform.evaluation.statistics import paired_difference
from vsel_platform.pipeline.benchmarks import Benchmark

EQUAL_BUDGET = "plain_equal_budget"
GREEDY = "plain_greedy"
MINUS_PLAIN = "minus_plain_equal_budget"


def compared_with_plain(
    benchmark: Benchmark, answers: Sequence[Mapping[str, Any]], headline: Measure, *, resamples: int, seed: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows of the `evaluation` table with the headline metric of plain answers to the same questions, and metadata.

    `plain_equal_budget`: the majority of plain answers that took no more tokens than self-questioning;
    `plain_greedy`: the first of them; `minus_plain_equal_budget`: self-questioning minus the majority, the paired
    difference. `answers` are rows of the `answers` table in the order of the questions; one
    without a trace is its own plain answer. The metadata has the paired difference with its 95 %
    interval too, in the unit of the metric, and tokens and answers per question.
    """
    plain = [_plain(answer) for answer in answers]
    parsed = iter(_parsed(benchmark, plain))
    chosen = [own[voted([next(parsed) for _ in own])] if own else None for own in plain]
    first = [own[0] if own else None for own in plain]
    rows, measures = [], []
    for name, picked in ((EQUAL_BUDGET, chosen), (GREEDY, first)):
        judgements = _judged(benchmark, [own["text"] if own else None for own in picked])
        found = benchmark.format.measures(benchmark.questions, judgements, benchmark.settings.compat)
        measure = next(own for own in found if own.name == headline.name and own.group == headline.group)
        measures.append(replace(measure, name=name))
        rows += metric_rows(benchmark.questions, judgements, measures[-1:], resamples=resamples, seed=seed)
    gain = paired_difference(headline, measures[0], benchmark.clusters, n_resamples=resamples, seed=seed)
    # Both on the same resamples: what the intervals of the two do not tell.
    rows.append(
        rows[0]
        | {"measure": MINUS_PLAIN, "position": len(rows), "unit": difference_unit(headline.unit)}
        | {"value": _known(gain.estimate), "low": _known(gain.low), "high": _known(gain.high)}
    )
    answered = max(1, sum(map(bool, plain)))
    return rows, {
        EQUAL_BUDGET: rows[0]["value"],
        "minus_plain": gain.estimate,
        "minus_plain_low": gain.low,
        "minus_plain_high": gain.high,
        "plain_tokens_per_answer": sum(own["n_tokens"] for said in plain for own in said) / answered,
        "plain_answers_per_question": sum(map(len, plain)) / answered,
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _plain(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Plain answers (`text`, `n_tokens`) to the question of a row, the greedy one first; none if it has no answer."""
    if answer["trace"] is not None:
        found: list[dict[str, Any]] = orjson.loads(answer["trace"])["plain"]
        return found
    return [] if answer["answer"] is None else [{"text": answer["answer"], "n_tokens": answer["n_tokens"]}]


def _parsed(benchmark: Benchmark, plain: Sequence[Sequence[Mapping[str, Any]]]) -> list[str | None]:
    """What every plain answer was taken for, question by question."""
    pairs = [(q, own["text"]) for q, said in zip(benchmark.questions, plain, strict=True) for own in said]
    questions, texts = [question for question, _ in pairs], [text for _, text in pairs]
    judged = benchmark.format.judge(questions, texts, benchmark.settings.compat) if pairs else []
    return [judgement.parsed for judgement in judged]


def _judged(benchmark: Benchmark, texts: Sequence[str | None]) -> list[Judgement]:
    return benchmark.format.judge(benchmark.questions, texts, benchmark.settings.compat)
