"""Leaderboard for people: a page, a Markdown table, and what the statistics mean in words."""

from collections import Counter
from collections.abc import Sequence
from html import escape

from vsel_platform.evaluation.leaderboard import Leaderboard, LeaderboardRow
from vsel_platform.evaluation.random_comparison import Verdict
from vsel_platform.evaluation.seed_noise import SeedNoise
from vsel_platform.pipeline.cost_lines import duration
from vsel_platform.reports.html import cell, document, figure, notes, section, table
from vsel_platform.reports.leaderboard_plot import decimals, leaderboard_plot
from vsel_platform.reports.markdown import Long
from vsel_platform.reports.markdown import table as markdown_table
from vsel_platform.reports.selection_report import Plot
from vsel_platform.reports.style import counted, number

HEADERS = (
    "Method",
    "Budget",
    "Rows",
    "Seeds",
    "Value",
    "Of full data",
    "Difference to random",
    "Verdict",
    "Rank",
    "Selection",
    "Training",
)
# A page is narrower: budgets are lines of their own, seeds and selection stand below a figure.
_PAGE_HEADERS = ("Method", "Rows", "Value", "Of full data", "Difference to random", "Verdict", "Rank", "Training")


def leaderboard_page(boards: Sequence[Leaderboard], *, title: str) -> str:
    """The page of one metric as one HTML document, a part for every dataset: verdicts, plot, table, random runs, rank
    stability, and how it was judged."""
    body = [f"<h1>{escape(title)}</h1>"]
    for board in boards:
        body += _part(board, title, f", {board.dataset}" if len(boards) > 1 else "")
    return document(title, body)


def _part(board: Leaderboard, title: str, suffix: str) -> list[str]:
    """Sections of a board; `suffix` names its dataset where there are several."""
    plot = leaderboard_plot(board, title=title + suffix)
    name = f"leaderboard, {board.measure.replace('_', ' ')}{suffix}"
    return [
        f"<h1>Dataset {escape(board.dataset)}</h1>" if suffix else "",
        f'<p class="lead">{escape(summary(board))}</p>',
        section("Notes", notes(board.notes)),
        section("Plot", figure(Plot(name, plot)) if plot else ""),
        section("Methods", _methods(board)),
        section("Random runs", _random(board)),
        section("Does the ranking hold?", _agreements(board)),
        section("How it is judged", "".join(f"<p>{escape(text)}</p>" for text in explanation(board))),
    ]


def leaderboard_markdown(boards: Sequence[Leaderboard]) -> str:
    """The tables in Markdown, each with its summary, notes and explanation; datasets are headings where there are
    several."""
    several = len({board.dataset for board in boards}) > 1
    texts = []
    dataset = None
    for board in boards:
        if several and board.dataset != dataset:
            dataset = board.dataset
            texts.append(f"## Dataset {dataset}\n")
        texts.append(_markdown(board))
    return "\n".join(texts)


def _markdown(board: Leaderboard) -> str:
    rows = [[Long(text if not small else f"{text} ({small})") for text, small in _texts(board, r)] for r in board.rows]
    parts = [summary(board), markdown_table(HEADERS, rows), *(f"Note: {note}" for note in board.notes)]
    return "\n\n".join([*parts, *explanation(board)]) + "\n"


def summary(board: Leaderboard) -> str:
    """What came out, in one or two sentences."""
    what = (
        f"{board.measure}{f' of {board.group}' if board.group else ''} [{board.unit}"
        f"{', less is better' if board.lower_is_better else ''}] on {counted(board.n_questions, 'question')} in "
        f"{counted(board.n_clusters, 'cluster')}."
    )
    if not board.n_comparisons:
        return f"{what} Nothing could be judged."
    verdicts = Counter(row.verdict for row in board.rows)
    kinds: tuple[Verdict, ...] = ("better than random", "worse than random", "not distinguishable from random")
    told = ", ".join(f"{number(verdicts[kind])} {kind}" for kind in kinds)
    return f"{what} Of {counted(board.n_comparisons, 'comparison')} with random selection: {told}."


def explanation(board: Leaderboard) -> list[str]:
    """How values, intervals and verdicts came about, one paragraph each."""
    texts = [
        "Value is the mean over the seeds; the range below is its 95 % interval. Intervals resample whole clusters of "
        f"questions ({number(board.n_resamples)} times, the same ones for all runs) and add the spread between seeds."
    ]
    if board.critical is not None:
        texts.append(
            "Difference to random compares with the mean of the random runs of the same budget on the same questions. "
            "Its range is the 95 % interval of this one comparison; the adjusted one, beside the verdict, is "
            f"{board.critical:.2f} standard errors wide to either side, so that all {number(board.n_comparisons)} "
            "adjusted intervals hold together with 95 % confidence. A verdict needs an adjusted interval without 0: "
            "among many methods the luckiest would look better than random by itself."
        )
    digits = decimals(board.unit) + 1
    groups: dict[SeedNoise, list[float]] = {}
    for budget, noise in board.seed_noise.items():
        groups.setdefault(noise, []).append(budget)
    for noise, budgets in groups.items():
        where = f" at {', '.join(_budget(board, budget) for budget in budgets)}" if len(groups) > 1 else ""
        texts.append(
            f"Seeds{where}: runs that differ in the seed alone scatter with a standard deviation of "
            f"{noise.variance**0.5:.{digits}f} ({counted(noise.df, 'degree')} of freedom); the choice of questions "
            f"alone would make it {noise.question_variance**0.5:.{digits}f}."
        )
    return texts


def _methods(board: Leaderboard) -> str:
    rows = []
    budget = None
    for row in board.rows:
        if row.budget != budget:
            budget = row.budget
            rows.append([f'<th colspan="{len(_PAGE_HEADERS)}">Budget {escape(_budget(board, budget))}</th>'])
        texts = dict(zip(HEADERS, _texts(board, row), strict=True))
        rows.append(
            [
                cell(row.label),
                cell(number(row.n_rows), "n", counted(row.n_seeds, "seed")),
                *(cell(texts[name][0], "n", texts[name][1]) for name in HEADERS[4:7]),
                cell(texts["Verdict"][0], "text", texts["Verdict"][1]),
                cell(texts["Rank"][0], "n", texts["Rank"][1]),
                cell(texts["Training"][0], "n", f"selection {texts['Selection'][0]}"),
            ]
        )
    return table(_PAGE_HEADERS, rows, numeric=(1, 2, 3, 4, 6, 7))


def _texts(board: Leaderboard, row: LeaderboardRow) -> list[tuple[str, str]]:
    """Cells of a row: text, and small text below it."""
    plain = f".{decimals(board.unit)}f"
    signed = f"+{plain}"
    adjusted = _range(row.adjusted_low, row.adjusted_high, signed)
    judged = "" if row.p_adjusted is None else f"adjusted {adjusted}, p {_p(row.p_adjusted)}"
    return [
        (row.label, ""),
        (_budget(board, row.budget), ""),
        (number(row.n_rows), ""),
        (number(row.n_seeds), ""),
        (_value(row.value, plain), _range(row.low, row.high, plain)),
        (_value(row.relative, ".0f", " %"), _range(row.relative_low, row.relative_high, ".0f")),
        (_value(row.difference, signed), _range(row.difference_low, row.difference_high, signed)),
        (row.verdict, judged),
        (_value(row.rank, "d"), _range(row.rank_low, row.rank_high, "d")),
        (_seconds(row.selection_seconds), ""),
        (_seconds(row.training_seconds), ""),
    ]


def _random(board: Leaderboard) -> str:
    plain = f".{decimals(board.unit)}f"
    rows = [
        [
            cell(_budget(board, band.budget)),
            cell(number(band.n_seeds), "n"),
            cell(f"{band.mean:{plain}}", "n"),
            cell(_range(band.smallest, band.largest, plain), "n"),
            cell(_range(band.low, band.high, plain) or "–", "n"),
        ]
        for band in board.bands
    ]
    headers = ["Budget", "Seeds", "Mean", "Smallest to largest", "95 % of further random runs"]
    return table(headers, rows, numeric=range(1, 5)) if rows else ""


def _agreements(board: Leaderboard) -> str:
    lead = (
        '<p class="lead">Kendall\'s tau of two rankings: 1 is the same order, 0 none in common, -1 the reverse. '
        "Ranks above have their 95 % intervals below them.</p>\n"
    )
    rows = []
    for one in board.agreements:
        between = f"{_budget(board, one.first)} and {_budget(board, one.second)}"
        if one.kind == "seeds":
            between = f"seeds at {_budget(board, one.first)} (mean of {counted(one.n_pairs, 'pair')})"
        rows.append([cell(between), cell(number(one.n_labels), "n"), cell(f"{one.tau:.2f}", "n")])
    return lead + table(["Rankings", "Labels", "Kendall's tau"], rows, numeric=(1, 2)) if rows else ""


def _budget(board: Leaderboard, budget: float) -> str:
    return f"{budget:g} %" if board.budget_unit == "percent" else f"{number(budget)} rows"


def _value(value: float | None, form: str, unit: str = "") -> str:
    return "–" if value is None else f"{value:{form}}{unit}"


def _range(low: float | None, high: float | None, form: str) -> str:
    return "" if low is None or high is None else f"{low:{form}} to {high:{form}}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _seconds(value: float | None) -> str:
    return "–" if value is None else duration(value)
