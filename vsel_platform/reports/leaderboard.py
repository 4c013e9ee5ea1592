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
    "Recipes",
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
RELATIVE = "Of full data"
MAX_RECIPES = 4
# A page is narrower: budgets are lines of their own; recipes, seeds and selection stand below another text.
_PAGE_HEADERS = ("Method", "Rows", "Value", "Of full data", "Difference to random", "Verdict", "Rank", "Training")
# Columns of texts; all others are numbers.
_KINDS = {"Method": "name", "Verdict": "text"}


def leaderboard_page(boards: Sequence[Leaderboard], *, title: str) -> str:
    """The page of leaderboards as one HTML document, a part for each: verdicts, plot, table, random runs, rank
    stability; then how all are judged."""
    body = [f"<h1>{escape(title)}</h1>"]
    for board in boards:
        body += _part(board, boards, title)
    judged = "".join(f"<p>{escape(text)}</p>" for text in explanation(boards))
    return document(title, [*body, section("How it is judged", judged)])


def _part(board: Leaderboard, boards: Sequence[Leaderboard], title: str) -> list[str]:
    """Sections of a board, below a heading where there are several."""
    measure = board.measure.replace("_", " ")
    dataset = board.dataset if len({one.dataset for one in boards}) > 1 else ""
    names = [f"dataset {dataset}"] if dataset else []
    names += [measure] if len({one.measure for one in boards}) > 1 else []
    name = ", ".join(names)
    plot = leaderboard_plot(board, title=", ".join([title, *names]))
    figure_name = ", ".join(["leaderboard", measure, *([dataset] if dataset else [])])
    level = 3 if name else 2
    return [
        f'<h2 class="part">{escape(name[0].upper() + name[1:])}</h2>' if name else "",
        f'<p class="lead">{escape(summary(board))}</p>',
        section("Notes", notes(board.notes), level),
        section("Plot", figure(Plot(figure_name, plot)) if plot else "", level),
        section("Methods", _methods(board), level),
        section("Random runs", _random(board), level),
        section("Does the ranking hold?", _agreements(board), level),
        *(f'<p class="lead">{escape(text)}</p>' for text in spread(board)),
    ]


def leaderboard_markdown(boards: Sequence[Leaderboard]) -> str:
    """The tables in Markdown, each with its summary and notes, then what holds for all; datasets are headings where
    there are several."""
    several = len({board.dataset for board in boards}) > 1
    texts = []
    dataset = None
    for board in boards:
        if several and board.dataset != dataset:
            dataset = board.dataset
            texts.append(f"## Dataset {dataset}")
        texts.append(_markdown(board))
    return "\n\n".join([*texts, *explanation(boards)]) + "\n"


def _markdown(board: Leaderboard) -> str:
    headers = _shown(board, HEADERS)
    rows = []
    for row in board.rows:
        texts = _texts(board, row)
        cells = (texts[name] for name in headers)
        rows.append([Long(f"{text} ({small})" if small else text) for text, small in cells])
    parts = [summary(board), markdown_table(headers, rows), *(f"Note: {note}" for note in board.notes)]
    return "\n\n".join([*parts, *spread(board)])


def _shown(board: Leaderboard, headers: Sequence[str]) -> list[str]:
    """Columns of a board: a share of full data only where there are such data and more is better."""
    relative = not board.lower_is_better and any(row.relative is not None for row in board.rows)
    return [name for name in headers if name != RELATIVE or relative]


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


def explanation(boards: Sequence[Leaderboard]) -> list[str]:
    """How the values, intervals and verdicts of all boards came about, one paragraph each."""
    resamples = " or ".join(number(n) for n in sorted({board.n_resamples for board in boards}))
    texts = [
        "Value is the mean over the seeds; the range with it is its 95 % interval. Intervals resample whole clusters "
        f"of questions ({resamples} times, the same ones for all runs) and add the spread between seeds."
    ]
    if any(board.critical is not None for board in boards):
        texts.append(
            "Difference to random compares with the mean of the random runs of the same budget on the same questions. "
            "Its range is the 95 % interval of this one comparison; the adjusted one, beside the verdict, is wider, so "
            "that all adjusted intervals of a table hold together with 95 % confidence. A verdict needs an adjusted "
            "interval without 0: among many methods the luckiest would look better than random by itself."
        )
    return texts


def spread(board: Leaderboard) -> list[str]:
    """How wide the adjusted intervals of a board are, and how much its seeds scatter."""
    texts = []
    if board.critical is not None:
        texts.append(
            f"Adjusted intervals of {counted(board.n_comparisons, 'comparison')}: {board.critical:.2f} standard errors "
            "to either side."
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
    headers = _shown(board, _PAGE_HEADERS)
    rows = []
    budget = None
    for row in board.rows:
        if row.budget != budget:
            budget = row.budget
            rows.append([f'<th colspan="{len(headers)}">Budget {escape(_budget(board, budget))}</th>'])
        texts = _texts(board, row)
        small = {
            "Method": texts["Recipes"][0],
            "Rows": counted(row.n_seeds, "seed"),
            "Training": f"selection {texts['Selection'][0]}",
        }
        rows.append([cell(texts[name][0], _KINDS.get(name, "n"), small.get(name, texts[name][1])) for name in headers])
    return table(headers, rows, numeric=[i for i, name in enumerate(headers) if name not in _KINDS])


def _texts(board: Leaderboard, row: LeaderboardRow) -> dict[str, tuple[str, str]]:
    """Cells of a row by column: text, and small text below it."""
    plain = f".{decimals(board.unit)}f"
    signed = f"+{plain}"
    adjusted = _range(row.adjusted_low, row.adjusted_high, signed)
    judged = "" if row.p_adjusted is None else f"adjusted {adjusted}, p {_p(row.p_adjusted)}"
    cells = [
        (row.label, ""),
        (_recipes(row.recipes), ""),
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
    return dict(zip(HEADERS, cells, strict=True))


def _recipes(names: Sequence[str]) -> str:
    more = len(names) - MAX_RECIPES
    return ", ".join(names[:MAX_RECIPES]) + (f" and {number(more)} more" if more > 0 else "")


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
