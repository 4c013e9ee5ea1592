"""Pages of selections and comparisons: one HTML file without any request, readable in light and dark."""

import base64
import re
from collections.abc import Iterable, Sequence
from html import escape, unescape
from urllib.parse import quote

from vsel_platform.reports.ranking import RankedRow
from vsel_platform.reports.selection_report import Plot, SelectionReport, share_name, share_of
from vsel_platform.reports.style import counted, number

# Nothing may be loaded from anywhere: a dataset's text can name a URL, the page never opens it.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

_FIGURE = re.compile(r'<figure><img alt="([^"]*)" src="data:image/png;base64,([^"]*)"></figure>')

_STYLE = """
:root { color-scheme: light dark; --paper: #f6f8fa; --card: #ffffff; --ink: #1f2933; --muted: #5f6b78;
  --line: #e1e6eb; --accent: #0072b2; --warn: #a34700; --warn-paper: #fff4ea; }
@media (prefers-color-scheme: dark) { :root { --paper: #12171c; --card: #1b2229; --ink: #e4e9ee;
  --muted: #9aa7b4; --line: #2d3740; --accent: #6cb8e6; --warn: #ffb27a; --warn-paper: #33251a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 26px; line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 36px 0 12px; }
h3 { font-size: 15px; margin: 24px 0 8px; }
h2.part { margin: 56px 0 4px; padding-top: 20px; border-top: 1px solid var(--line); }
h1 + h2.part { margin-top: 28px; padding-top: 0; border-top: 0; }
p { margin: 0 0 8px; } .lead { color: var(--muted); }
a { color: var(--accent); }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 24px 0 0; }
dl div, .card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 16px; }
dt { color: var(--muted); font-size: 13px; }
dd { margin: 0; font-size: 17px; font-weight: 600; overflow-wrap: anywhere; }
.notes { background: var(--warn-paper); color: var(--warn); border-radius: 10px; padding: 12px 16px 12px 34px;
  margin: 0; }
.scroll { overflow-x: auto; padding: 0; } .scroll + p, section + p { margin-top: 12px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 12px; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
tr:last-child td { border-bottom: 0; }
th { color: var(--muted); font-weight: 500; vertical-align: bottom; }
tbody th { color: var(--ink); background: var(--paper); }
.n { text-align: right; white-space: nowrap; } th.n { white-space: normal; }
.small { display: block; color: var(--muted); font-size: 12px; }
.text { min-width: 240px; overflow-wrap: anywhere; } .line { white-space: nowrap; }
.name { min-width: 150px; overflow-wrap: anywhere; }
code { font: 12px ui-monospace, monospace; color: var(--muted); }
figure { margin: 0 0 16px; background: #ffffff; border: 1px solid var(--line); border-radius: 10px; padding: 10px;
  text-align: center; }
figure img { max-width: 100%; height: auto; display: block; margin: 0 auto; }
/* Plots are drawn on white: in the dark their paper takes the colour of the card. */
@media (prefers-color-scheme: dark) { figure { background: #e3e7eb; border-color: transparent; }
  figure img { mix-blend-mode: multiply; } }
"""


def selection_page(report: SelectionReport) -> str:
    """The page as one HTML document: styles and pictures inside, every text escaped, no script."""
    title = f"Selection {report.recipe}"
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">{escape(_lead(report))}</p>',
        _facts(report),
        section("Notes", notes(report.notes)),
        section("Files", _files(report.files)),
        section("Plots", "".join(figure(plot) for plot in report.plots)),
        section("Tasks", _tasks(report)),
        section("First rows of each reason, by rank", _ranking(report)),
    ]
    return document(title, body)


def document(title: str, body: Iterable[str]) -> str:
    """A page of parts: styles inside, nothing loaded from anywhere, no script."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def _lead(report: SelectionReport) -> str:
    share = f" ({report.n_selected / report.n_rows:.1%})" if report.n_rows else ""
    return (
        f"{number(report.n_selected)} of {number(report.n_rows)} distinct rows{share} "
        f"of dataset {report.dataset}, chosen by {report.method}."
    )


def _facts(report: SelectionReport) -> str:
    facts = {
        "Recipe": report.recipe,
        "Dataset": report.dataset,
        "Method": f"{report.method} ({report.mode})",
        "Budget": report.budget,
        "Rows selected": number(report.n_selected),
        "Rounds": number(report.rounds),
        "Seed": str(report.seed),
        **{f"Reason: {reason}": counted(count, "row") for reason, count in report.reasons.items()},
    }
    items = (f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
    return f"<dl>{''.join(items)}</dl>"


def section(heading: str, content: str, level: int = 2) -> str:
    """A part with a heading of a level; nothing without content."""
    return f"<section>\n<h{level}>{escape(heading)}</h{level}>\n{content}\n</section>" if content else ""


def notes(notes: Sequence[str]) -> str:
    """Remarks as a list; nothing without any."""
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<ul class="notes">{items}</ul>' if items else ""


def _files(files: dict[str, str]) -> str:
    rows = [[cell(name), f'<td><a href="./{quote(file)}">{escape(file)}</a></td>'] for name, file in files.items()]
    return table(["What", "File beside this page"], rows) if rows else ""


def figure(plot: Plot) -> str:
    """A plot as a picture inside the page."""
    data = base64.b64encode(plot.png).decode("ascii")
    return f'<figure><img alt="{escape(plot.name)}" src="data:image/png;base64,{data}"></figure>\n'


def figures(page: str) -> list[Plot]:
    """The plots of a page, as `figure` put them there."""
    return [Plot(unescape(name), base64.b64decode(data)) for name, data in _FIGURE.findall(page)]


def _tasks(report: SelectionReport) -> str:
    rows = [
        [
            cell(t.task, "text"),
            *(cell(number(n), "n") for n in (t.n_total, t.n_reference)),
            cell("–" if t.difficulty is None else f"{t.difficulty:.3f}", "n"),
            cell(share_of(report.method, t), "n"),
            *(cell(number(n), "n") for n in (t.budget, t.n_selected, t.n_taken)),
        ]
        for t in report.tasks
    ]
    headers = [
        "Task",
        "Rows",
        "Reference",
        "Difficulty",
        share_name(report.method),
        "Budget",
        "Selected",
        "With reference",
    ]
    note = ""
    if any(t.n_reference for t in report.tasks):
        note = (
            '<p class="lead">Share, budget and selected rows are without the reference rows; '
            "the last column counts them in.</p>\n"
        )
    return note + table(headers, rows, numeric=range(1, 8)) if rows else ""


def _ranking(report: SelectionReport) -> str:
    headers = ["Rank", "Task", "Score", "Begin of the conversation", "Position in the source"]
    sentences = {place.reason: place.sentence for place in report.places}
    rows: list[list[str]] = []
    reason: str | None = None
    for row in report.ranking:
        if row.reason != reason:
            reason = row.reason
            rows.append([f'<th colspan="{len(headers)}">{escape(sentences.get(reason, reason))}</th>'])
        rows.append(_ranked(row))
    return table(headers, rows, numeric=(0, 2, 4)) if rows else ""


def _ranked(row: RankedRow) -> list[str]:
    return [
        cell(number(row.rank), "n"),
        cell(row.task),
        cell("–" if row.score is None else f"{row.score:.4f}", "n"),
        f'<td class="text">{escape(row.text)}<br><code>{escape(row.sample_id[:16])}</code></td>',
        cell(str(row.position), "n"),
    ]


def cell(text: str, kind: str = "", small: str = "") -> str:
    """A table cell; every text is escaped. `kind` n is for numbers, `small` is a muted line below the text."""
    attribute = f' class="{kind}"' if kind else ""
    below = f'<span class="small">{escape(small)}</span>' if small else ""
    return f"<td{attribute}>{escape(text)}{below}</td>"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], numeric: Iterable[int] = ()) -> str:
    """A table that scrolls sideways; columns in `numeric` are aligned right."""
    right = set(numeric)
    head = "".join(
        f'<th class="n">{escape(name)}</th>' if i in right else f"<th>{escape(name)}</th>"
        for i, name in enumerate(headers)
    )
    body = "\n".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return (
        f'<div class="card scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'
    )
