"""Texts behind the findings of a leakage search: what was asked, and the training rows that it was found in."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise

import orjson

from vsel_platform.evaluation.benchmark import Question
from vsel_platform.evaluation.leakage import Finding, Kind, Leakage
from vsel_platform.evaluation.text_overlap import words
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.lookup import distinct_contents, samples_of
from vsel_platform.pipeline.training_rows import ModelRow
from vsel_platform.reports.pictures import Excerpt

MAX_QUESTIONS = 100
# What tells most comes first: the same question and answer, then words in common, then images.
_TELLING: tuple[Kind, ...] = ("question", "ngram", "image", "near_image")


@dataclass(frozen=True, slots=True)
class Row:
    """A training row: its turns `(role, text)`, its place in the source, and its id there ("" if it has none)."""

    turns: tuple[tuple[str, str], ...]
    position: int
    source_id: str

    def text(self, question: str) -> str:
        """The turn that has most words in common with `question` and its answer, each shortened."""
        asked = set(words(question))
        pairs = [(a, b) for (role, a), (_, b) in pairwise(self.turns) if role == "user"] or [("", "")]
        best = max(pairs, key=lambda pair: len(asked & set(words(" ".join(pair)))))
        return Excerpt(plain(best[0]), plain(best[1]), ()).text(120, 60)


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts of questions by id, training rows by `sample_id`, and for an image the first row by id that shows it."""

    questions: Mapping[str, str] = field(default_factory=dict)
    rows: Mapping[str, Row] = field(default_factory=dict)
    showing: Mapping[str, str] = field(default_factory=dict)

    def places(self, findings: Sequence[Finding]) -> list[str]:
        """Training rows (`sample_id`) of the findings of a question, the most telling first."""
        ordered = sorted(findings, key=lambda finding: _TELLING.index(finding.kind))
        found = (finding.sample_id or self.showing.get(finding.image_id or "") for finding in ordered)
        return [sample for sample in dict.fromkeys(found) if sample is not None]


def by_question(leaks: Leakage, limit: int = MAX_QUESTIONS) -> dict[str, list[Finding]]:
    """Findings of the first questions that have any."""
    groups: dict[str, list[Finding]] = {}
    for finding in leaks.findings:
        groups.setdefault(finding.question_id, []).append(finding)
    return dict(islice(groups.items(), limit))


def texts_of(
    ctx: Context, dataset: str, questions: Sequence[Question], rows: Sequence[ModelRow], leaks: Leakage
) -> Texts:
    """Texts of the findings that are shown; `rows` are those that were searched."""
    shown = by_question(leaks)
    findings = [finding for group in shown.values() for finding in group]
    images = {finding.image_id for finding in findings if finding.sample_id is None}
    showing: dict[str, str] = {}
    for row in rows:
        for image in images.intersection(row.images):
            showing[str(image)] = min(showing.get(str(image), row.sample_id), row.sample_id)
    samples = {finding.sample_id for finding in findings if finding.sample_id is not None} | set(showing.values())
    return Texts(
        {one.question_id: one.turns[-1][1] for one in questions if one.question_id in shown and one.turns},
        _rows(ctx, dataset, samples, rows),
        showing,
    )


def _rows(ctx: Context, dataset: str, samples: Collection[str], rows: Sequence[ModelRow]) -> dict[str, Row]:
    contents = {one.sample_id: one for one in distinct_contents(ctx, dataset)[1] if one.sample_id in samples}
    stored = samples_of(ctx, {one.shard for one in contents.values()}, samples, ["sample_id", "row_json"])
    ids = {row["sample_id"]: orjson.loads(row["row_json"]).get("id") for row in stored.to_pylist()}
    return {
        row.sample_id: Row(row.turns, contents[row.sample_id].position, "" if own is None else str(own))
        for row in rows
        if row.sample_id in contents
        for own in [ids.get(row.sample_id)]
    }


def plain(text: str) -> str:
    """A text on one line, without image tags."""
    return " ".join(text.replace("<image>", " ").split())
