"""What of a benchmark stands in the training rows, for people: a page and a Markdown table."""

from collections.abc import Sequence
from html import escape

from vsel_platform.evaluation.leakage import KINDS, Finding, Kind, Leakage
from vsel_platform.reports.html import cell, document, notes, section, table
from vsel_platform.reports.leak_texts import Texts, by_question, plain
from vsel_platform.reports.markdown import Long
from vsel_platform.reports.markdown import table as markdown_table
from vsel_platform.reports.style import counted, number

MAX_MARKDOWN = 10
MAX_PLACES = 2
QUESTION_CHARACTERS = 200
MEANING = {
    "image": "a training row shows the same image",
    "near_image": "a training image looks nearly the same",
    "ngram": "a training row has a long run of words of question and answer",
    "question": "a training row about the same image asks and answers the same",
}
_HEADERS = ("Question", "Found", "Training row")


def leakage_page(
    leaks: Leakage, texts: Texts, *, benchmark: str, dataset: str, n_images: int = 0, n_unread: int = 0
) -> str:
    """The page as one HTML document: counts by kind, and the first 100 questions with the rows they were found in.

    `n_unread` of the benchmark's `n_images` images could not be read, and were looked for nowhere.
    """
    title = f"{benchmark} in the training rows of {dataset}"
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">{escape(summary(leaks))}</p>',
        section("Notes", notes(unread_images(n_images, n_unread))),
        section("By kind", _counts(leaks)),
        section("Questions", _questions(leaks, texts)),
    ]
    return document(title, body)


def leakage_markdown(leaks: Leakage, texts: Texts) -> str:
    """Summary, counts by kind, and the first 10 questions, in Markdown."""
    counts = [[one.kind, Long(MEANING[one.kind]), one.n_questions, one.n_pairs] for one in leaks.counts]
    parts = [summary(leaks), markdown_table(["Kind", "What it means", "Questions", "Pairs"], counts)]
    rows = []
    for question, findings in by_question(leaks, MAX_MARKDOWN).items():
        found = "; ".join(f"{kind}: {strength}" for kind, strength in _kinds(findings))
        asked = _joined(_asked(texts, question), question)
        places = [_joined(*place) for place in _places(texts, question, findings)[:1]]
        rows.append([Long(asked), Long(found), Long(*places)])
    if rows:
        parts += [markdown_table(_HEADERS, rows), *_more(leaks, len(rows))]
    return "\n\n".join(parts) + "\n"


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


def _questions(leaks: Leakage, texts: Texts) -> str:
    shown = by_question(leaks)
    rows = [
        [
            cell(_asked(texts, question), "text", question),
            _lines([("", f"{kind}: {strength}") for kind, strength in _kinds(findings)], "line"),
            _lines(_places(texts, question, findings), "text"),
        ]
        for question, findings in shown.items()
    ]
    rest = "".join(f'<p class="lead">{escape(text)}</p>' for text in _more(leaks, len(rows)))
    return table(_HEADERS, rows) + rest if rows else ""


def _more(leaks: Leakage, n_shown: int) -> list[str]:
    more = leaks.n_affected - n_shown
    return [f"{counted(more, 'question')} more; the table leakage has them all."] if more else []


def _lines(lines: Sequence[tuple[str, str]], kind: str) -> str:
    """A cell of texts, each with a muted line below it; every text is escaped."""
    inner = "".join(f'{escape(text)}<span class="small">{escape(small)}</span>' for text, small in lines)
    return f'<td class="{kind}">{inner or "–"}</td>'


def _joined(text: str, name: str) -> str:
    return f"{text} ({name})" if text else name


def _asked(texts: Texts, question: str) -> str:
    text = plain(texts.questions.get(question, ""))
    return text if len(text) <= QUESTION_CHARACTERS else text[: QUESTION_CHARACTERS - 1].rstrip() + "…"


def _kinds(findings: Sequence[Finding]) -> list[tuple[str, str]]:
    """Kinds of findings of a question, each with the strongest."""
    found: list[tuple[str, str]] = []
    for kind in KINDS:
        values = [finding.value for finding in findings if finding.kind == kind]
        if values:
            text = _strength(kind, max(values))
            found.append((kind, text if len(values) == 1 else f"strongest of {len(values)}: {text}"))
    return found


def _strength(kind: Kind, value: float) -> str:
    texts = {
        "image": f"shown by {counted(int(value), 'row')}",
        "near_image": f"cosine {value:.3f}",
        "ngram": counted(int(value), "shared n-gram"),
        "question": counted(int(value), "word"),
    }
    return texts[kind]


def _places(texts: Texts, question: str, findings: Sequence[Finding]) -> list[tuple[str, str]]:
    """The most telling rows that a question was found in: text, and where the row stands."""
    samples = texts.places(findings)
    found = []
    for sample in samples[:MAX_PLACES]:
        row = texts.rows.get(sample)
        if row is None:
            found.append(("", f"row {sample[:16]}"))
        else:
            place = f"id {row.source_id}, " if row.source_id else ""
            text = row.text(texts.questions.get(question, "")) or "no text"
            found.append((text, f"{place}position {row.position}, {sample[:16]}"))
    return found
