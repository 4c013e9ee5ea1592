"""A ruling on a champion for people: its page, a plot of the interval, and a Markdown table."""

import math
from html import escape
from typing import Any

from matplotlib.ticker import FuncFormatter

from vsel_platform.evaluation.promotion import Promotion, difference_unit
from vsel_platform.reports.html import document, figure, section
from vsel_platform.reports.leaderboard_plot import decimals
from vsel_platform.reports.markdown import Long
from vsel_platform.reports.markdown import table as markdown_table
from vsel_platform.reports.selection_report import Plot
from vsel_platform.reports.style import (
    FONT,
    INK,
    MUTED,
    PAPER,
    POOL,
    SELECTED,
    WARNING,
    counted,
    label,
    new_figure,
    number,
    style_axes,
    to_png,
)


def promotion_page(ruling: Promotion, *, candidate: str, champion: str) -> str:
    """The page of a ruling as one HTML document; `candidate` and `champion` are names of recipes."""
    title = headline(ruling, candidate, champion)
    plot = promotion_plot(ruling, title=title)
    facts = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in _facts(ruling, candidate, champion).items()
    )
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">{escape(ruling.reason)}</p>',
        f"<dl>{facts}</dl>",
        section("Plot", figure(Plot("promotion", plot)) if plot else ""),
        section("The rule", f"<p>{escape(rule(ruling))}</p>"),
    ]
    return document(title, body)


def promotion_markdown(ruling: Promotion, *, candidate: str, champion: str) -> str:
    """The ruling, its reason and its numbers in Markdown."""
    rows = [[name, Long(value)] for name, value in _facts(ruling, candidate, champion).items()]
    parts = [headline(ruling, candidate, champion) + ".", ruling.reason, markdown_table(["What", "Value"], rows)]
    return "\n\n".join([*parts, rule(ruling)]) + "\n"


def headline(ruling: Promotion, candidate: str, champion: str) -> str:
    """Who is the champion now."""
    if ruling.ruling == "promote":
        return f"{candidate} takes the place of {champion}"
    return f"{champion} stays, {candidate} is not promoted"


def rule(ruling: Promotion) -> str:
    """The rule in words, with its limits."""
    unit = difference_unit(ruling.unit)
    return (
        "A candidate is promoted if the 95 % interval of candidate - champion is not all below "
        f"{_signed(-ruling.margin)} {unit} (it is not shown to be worse), and does not reach below "
        f"{_signed(-ruling.max_loss)} {unit} (a loss that would matter is ruled out). An interval that is too "
        "wide for that keeps the champion."
    )


def _facts(ruling: Promotion, candidate: str, champion: str) -> dict[str, str]:
    seeds = f"yes, {counted(ruling.seed_df, 'degree')} of freedom" if ruling.seed_df else "no, one seed each"
    return {
        "Ruling": ruling.ruling,
        "Measure": f"{ruling.measure} [{ruling.unit}]{', less is better' if ruling.lower_is_better else ''}",
        f"Candidate: {candidate}": _value(ruling, ruling.candidate) + f" ({counted(ruling.candidate_seeds, 'seed')})",
        f"Champion: {champion}": _value(ruling, ruling.champion) + f" ({counted(ruling.champion_seeds, 'seed')})",
        "Difference, positive is better": _value(ruling, ruling.difference, "+"),
        "95 % interval": f"{_value(ruling, ruling.low, '+')} to {_value(ruling, ruling.high, '+')}",
        "Share of draws not better": "–" if ruling.share_not_better is None else f"{ruling.share_not_better:.1%}",
        "Questions": f"{number(ruling.n_questions)} in {counted(ruling.n_clusters, 'cluster')}",
        "Spread between seeds in the interval": seeds,
    }


def promotion_plot(ruling: Promotion, *, title: str) -> bytes | None:
    """The interval of the difference against 0 and the limits of the rule. None if there is no interval."""
    low, high, middle = ruling.low, ruling.high, ruling.difference
    if low is None or high is None or middle is None:
        return None
    good = ruling.ruling == "promote"
    picture = new_figure(
        210, title, "Candidate - champion with its 95 % interval; positive is better, grey is too large a loss to risk"
    )
    axes = picture.subplots()
    reach = 1.12 * max(abs(low), abs(high), ruling.max_loss) or 1.0
    style_axes(axes, xlabel=f"candidate - champion, {ruling.measure} [{difference_unit(ruling.unit)}]", grid="x")
    axes.axvspan(-reach, -ruling.max_loss, color=POOL, alpha=0.55, linewidth=0, zorder=0.6)
    axes.axvline(-ruling.margin, ymin=0.42, color=INK, linewidth=1.0, zorder=0.8)
    axes.axvline(-ruling.max_loss, color=INK, linewidth=1.2, linestyle=(0, (4, 3)), zorder=0.8)
    colour = SELECTED if good else WARNING
    axes.plot([low, high], [0, 0], color=colour, linewidth=4, solid_capstyle="butt")
    axes.plot([middle], [0], "o" if good else "v", color=colour, markersize=10)
    # Paper behind a value: the line of a limit may run where it stands.
    paper = {"facecolor": PAPER, "edgecolor": "none", "boxstyle": "round,pad=0.2"}
    text: dict[str, Any] = {"textcoords": "offset points", "family": FONT, "ha": "center", "size": 9.5, "bbox": paper}
    axes.annotate(_value(ruling, middle, "+"), (middle, 0), (0, 11), color=INK, weight="bold", **text)
    for end in (low, high) if high - low > 0.16 * reach else ():
        axes.annotate(_value(ruling, end, "+"), (end, 0), (0, -17), color=MUTED, **text)
    axes.set_xlim(-reach, reach)
    axes.set_ylim(-1.6, 1.5)
    axes.set_yticks([])
    _limit(axes, -ruling.margin, 1.5, "margin" if ruling.margin else "no difference")
    _limit(axes, -ruling.max_loss, -1.6, "largest loss to risk")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _signed(value)))
    return to_png(picture)


def _limit(axes: Any, x: float, y: float, name: str) -> None:
    # At the top and at the bottom: lines that are close have names that do not meet.
    place = (4, -10) if y > 0 else (4, 5)
    axes.annotate(label(name), (x, y), place, textcoords="offset points", size=8.5, color=MUTED, family=FONT)


def _signed(value: float) -> str:
    return "0" if math.isclose(value, 0, abs_tol=1e-12) else f"{value:+g}"


def _value(ruling: Promotion, value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.{decimals(ruling.unit) + 1}f}"
