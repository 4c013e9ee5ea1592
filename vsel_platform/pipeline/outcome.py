"""What came out of a stage, in the few words that the line of a run has room for."""

import re
from collections.abc import Mapping
from typing import Any

from vsel_platform.evaluation.metric_rows import HEADLINE

CONCERNED = "questions concerned"
UNREAD = "images not read"
_CLAUSE = re.compile(r"[:.;]( |$)")


def outcome(stage: str, metadata: Mapping[str, Any]) -> str:
    """What a stage found, out of the metadata of its result; "" where there is nothing to tell.

    Evaluations: the headline metric with its 95 % interval, questions that the model could not be asked, and questions
    without a right answer. Leakage: questions of benchmarks in the selected rows. Promotion: the ruling and why.
    """
    told = _OF[stage](metadata) if stage in _OF else []
    return "; ".join(told)


def _evaluation(metadata: Mapping[str, Any]) -> list[str]:
    told = [str(metadata.get(HEADLINE, "no metric: no question counts in it"))]
    questions = metadata.get("n_questions", 0)
    if unanswered := metadata.get("n_not_answered", 0):
        told.append(f"{unanswered:,} of {questions:,} questions not answered")
    if unknown := metadata.get("n_without_right_answer", 0):
        told.append(f"{unknown:,} of {questions:,} questions without a right answer, not scored")
    return told


def _leakage(metadata: Mapping[str, Any]) -> list[str]:
    """Counts are texts such as "3 of 48", under "<benchmark>: questions concerned"."""
    found = [(name.rpartition(": "), value) for name, value in metadata.items() if isinstance(value, str)]
    return [
        f"{benchmark}: {value} {what}"
        for (benchmark, _, what), value in found
        if what in (CONCERNED, UNREAD) and not value.startswith("0 ")
    ]


def _promotion(metadata: Mapping[str, Any]) -> list[str]:
    reason = _CLAUSE.split(str(metadata.get("reason", "")), maxsplit=1)[0]
    champion = metadata.get("champion")
    ruling = f"takes the place of {champion}" if metadata.get("ruling") == "promote" else f"{champion} stays"
    return [f"{ruling}: {reason[:1].lower()}{reason[1:]}"]


_OF = {"base_evaluation": _evaluation, "evaluation": _evaluation, "leakage": _leakage, "promotion": _promotion}
