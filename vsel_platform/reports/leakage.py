"""What of a benchmark stands in the training rows, for people: a page and a Markdown table."""

from collections.abc import Sequence
from html import escape

from vsel_platform.evaluation.leakage import Finding, Leakage
from vsel_platform.reports.html import cell, document, notes, section, table
from vsel_platform.reports.markdown import Long
from vsel_platform.reports.markdown import table as markdown_table
from vsel_platform.reports.style import counted, number

MAX_FINDINGS = 200
MEANING = {
    "image": "a training row shows the same image",
    "near_image": "a training image looks nearly the same",
    "ngram": "a training row has a long run of words of question and answer",
    "question": "a training row about the same image asks and answers the same",
}
_VALUES = {"image": "rows that show it", "near_image": "cosine", "ngram": "shared n-grams", "question": "words"}
_HEADERS = ("Question", "Found", "Training row", "Training image", "Strength")


def leakage_page(leaks: Leakage, *, benchmark: str, dataset: str, n_images: int = 0, n_unread: int = 0) -> str:
    """The page as one HTML document: counts by kind, and the findings (the first 200).

    `n_unread` of the benchmark's `n_images` images could not be read, and were looked for nowhere.
    """
    title = f"{benchmark} in the training rows of {dataset}"
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">{escape(summary(leaks))}</p>',
        section("Notes", notes(unread_images(n_images, n_unread))),
        section("By kind", _counts(leaks)),
        section("Findings", _findings(leaks.findings)),
    ]
    return document(title, body)


def leakage_markdown(leaks: Leakage) -> str:
    """Summary and counts by kind in Markdown."""
    rows = [[one.kind, Long(MEANING[one.kind]), one.n_questions, one.n_pairs] for one in leaks.counts]
    table = markdown_table(["Kind", "What it means", "Questions", "Pairs"], rows)
    return f"{summary(leaks)}\n\n{table}\n"


def summary(leaks: Leakage) -> str:
    """How many questions are concerned, in a sentence or two."""
    share = f" ({leaks.n_affected / leaks.n_questions:.1%})" if leaks.n_questions else ""
    text = (
        f"{number(leaks.n_affected)} of {counted(leaks.n_questions, 'question')}{share} found in "
        f"{counted(leaks.n_rows, 'training row')}."
    )
    if leaks.n_templates:
        text += (
            f" Not looked for: {counted(leaks.n_templates, 'n-gram')} of so many questions that they are instructions."
        )
    return text


def unread_images(n_images: int, n_unread: int) -> list[str]:
    """A sentence about images that could not be read; none if there are none."""
    if not n_unread:
        return []
    return [f"{number(n_unread)} of {counted(n_images, 'image')} could not be read, and were not looked for."]


def _counts(leaks: Leakage) -> str:
    rows = [
        [
            cell(one.kind, "", MEANING[one.kind]),
            cell(number(one.n_questions), "n"),
            cell(f"{one.n_questions / leaks.n_questions:.1%}" if leaks.n_questions else "–", "n"),
            cell(number(one.n_pairs), "n"),
        ]
        for one in leaks.counts
    ]
    return table(["Kind", "Questions", "Share", "Pairs"], rows, numeric=range(1, 4))


def _findings(findings: Sequence[Finding]) -> str:
    rows = [
        [
            cell(one.question_id),
            cell(one.kind),
            *(f"<td><code>{escape((name or '–')[:16])}</code></td>" for name in (one.sample_id, one.image_id)),
            cell(f"{one.value:.3f}" if one.kind == "near_image" else number(one.value), "n", _VALUES[one.kind]),
        ]
        for one in findings[:MAX_FINDINGS]
    ]
    more = len(findings) - len(rows)
    rest = f'<p class="lead">{counted(more, "finding")} more.</p>' if more else ""
    return table(_HEADERS, rows, numeric=(4,)) + rest if rows else ""
