"""Plot of a leaderboard: methods against random selections and full data, one panel per budget."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from vsel_platform.evaluation.leaderboard import Leaderboard, LeaderboardRow, RandomBand
from vsel_platform.evaluation.run_groups import FULL
from vsel_platform.reports.style import (
    FONT,
    GRID,
    INK,
    MUTED,
    PAPER,
    POOL,
    SELECTED,
    WARNING,
    label,
    new_figure,
    number,
    style_axes,
    to_png,
)

MAX_ROWS = 16
ROW_PX = 21
PANEL_PX = 44
# Verdict -> colour, marker, filled: they differ in more than colour.
MARKS: dict[str, tuple[str, str, bool]] = {
    "better than random": (SELECTED, "o", True),
    "worse than random": (WARNING, "v", True),
    "not distinguishable from random": (MUTED, "o", False),
    "not judged": (MUTED, "x", True),
    "random": (INK, "D", True),
}
OUTER = "#e9edf1"


def leaderboard_plot(board: Leaderboard, *, title: str) -> bytes | None:
    """Every label's value at every budget, best on top, over the band of random runs, with full data as a line.

    The bars are intervals of the difference to random, laid at the value: one that leaves the line of random's mean is
    a verdict, as in the table. Thick: of this comparison; thin: of all comparisons together. What was not judged has
    the interval of its value. Beyond 16 labels a budget ends with a line that says how many more. None without any
    value.
    """
    panels = _panels(board)
    if not panels:
        return None
    lines = [min(len(rows), MAX_ROWS) for _, rows in panels]
    height = 138 + sum(PANEL_PX + ROW_PX * n for n in lines)
    picture = new_figure(height, title, _subtitle(board), legend_px=44)
    axes = picture.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=[n + 0.6 for n in lines])[:, 0]
    full = next((row.value for row in board.rows if row.verdict == "full data"), None)
    bands = {band.budget: band for band in board.bands}
    relative = not board.lower_is_better and any(row.relative is not None for row in board.rows)
    for one, (budget, rows) in zip(axes, panels, strict=True):
        style_axes(one, xlabel=_axis(board) if one is axes[-1] else "", grid="x")
        _background(one, bands.get(budget), full)
        _rows(one, rows, decimals(board.unit), relative)
        one.set_title(_panel_title(board, budget, rows), loc="left", size=9.5, color=INK, family=FONT, pad=5)
    axes[0].set_xlim(*_limits(board, full))
    head = "value" + ("  of full" if relative else "")
    axes[0].annotate(head, (1.0, 1.0), (6, 5), xycoords="axes fraction", textcoords="offset points",
                     size=8.5, color=MUTED, family=FONT)  # fmt: skip
    _legend(picture, height, board, full is not None)
    return to_png(picture)


def _panels(board: Leaderboard) -> list[tuple[float, list[LeaderboardRow]]]:
    panels: dict[float, list[LeaderboardRow]] = {}
    for row in board.rows:
        if row.label != FULL and row.value is not None:
            panels.setdefault(row.budget, []).append(row)
    return list(panels.items())


def _subtitle(board: Leaderboard) -> str:
    if not board.n_comparisons:
        bars = any(row.verdict == "not judged" and row.low is not None for row in board.rows)
        drawn = "Bars: 95 % interval of the value" if bars else "Points: mean over the seeds"
        return f"{drawn}. Nothing is judged, see the notes."
    return (
        "Bars: 95 % interval of the difference to random, laid at the value; thin: "
        f"for all {number(board.n_comparisons)} comparisons at once"
    )


def _axis(board: Leaderboard) -> str:
    direction = ", less is better" if board.lower_is_better else ""
    return f"{board.measure}{f' of {board.group}' if board.group else ''} [{board.unit}]{direction}"


def _panel_title(board: Leaderboard, budget: float, rows: Sequence[LeaderboardRow]) -> str:
    n_rows = sorted({row.n_rows for row in rows})
    told = number(n_rows[0]) if len(n_rows) == 1 else f"{number(n_rows[0])} to {number(n_rows[-1])}"
    percent = f"{budget:g} % of the rows: " if board.budget_unit == "percent" else ""
    return f"{percent}{told} rows"


def _background(axes: Any, band: RandomBand | None, full: float | None) -> None:
    if band is not None:
        if band.low is not None and band.high is not None:
            axes.axvspan(band.low, band.high, color=OUTER, linewidth=0, zorder=0.6)
        axes.axvspan(band.smallest, band.largest, color=POOL, linewidth=0, zorder=0.7)
        axes.axvline(band.mean, color=INK, linewidth=1.0, zorder=0.8)
    if full is not None:
        axes.axvline(full, color=INK, linewidth=1.4, linestyle=(0, (4, 3)), zorder=0.8)


def decimals(unit: str) -> int:
    """Digits behind the point that a value in `unit` is shown with."""
    return 1 if unit in ("percent", "points") else 3


def _rows(axes: Any, rows: Sequence[LeaderboardRow], digits: int, relative: bool) -> None:
    shown = list(rows) if len(rows) <= MAX_ROWS else list(rows[: MAX_ROWS - 1])
    for y, row in enumerate(shown):
        _row(axes, y, row)
        text = f"{row.value:.{digits}f}" + (f"  {row.relative:.0f} %" if relative and row.relative is not None else "")
        axes.annotate(
            text, (1.0, y), (6, 0), xycoords=axes.get_yaxis_transform(), textcoords="offset points",
            va="center", size=8.5, color=INK, family=FONT,
        )  # fmt: skip
    names = [label(row.label, 30) for row in shown]
    names += [f"({number(len(rows) - len(shown))} more)"] if len(rows) > len(shown) else []
    axes.set_yticks(range(len(names)), labels=names)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(len(names) - 0.4, -0.6)


def _row(axes: Any, y: int, row: LeaderboardRow) -> None:
    colour, marker, filled = MARKS[row.verdict]
    value = row.value or 0.0
    if row.difference is not None:
        for low, high, width in (
            (row.adjusted_low, row.adjusted_high, 1.1),
            (row.difference_low, row.difference_high, 3.2),
        ):
            ends = [value - row.difference + end for end in (low, high) if end is not None]
            axes.plot(ends, [y, y], color=colour, linewidth=width, solid_capstyle="butt", zorder=2)
    elif row.verdict == "not judged" and row.low is not None:
        axes.plot([row.low, row.high], [y, y], color=colour, linewidth=1.1, zorder=2)
    face = colour if filled else PAPER
    axes.plot([value], [y], marker, color=colour, markerfacecolor=face, markersize=6.5, markeredgewidth=1.5, zorder=3)


def _limits(board: Leaderboard, full: float | None) -> tuple[float, float]:
    """Ends of the axis: all that is drawn, with some room."""
    values: list[float | None] = [full]
    for row in board.rows:
        values.append(row.value)
        if row.difference is not None and row.value is not None:
            shift = row.value - row.difference
            values += [shift + end for end in (row.adjusted_low, row.adjusted_high) if end is not None]
        elif row.verdict == "not judged":
            values += [row.low, row.high]
    for band in board.bands:
        values += [band.low, band.high, band.smallest, band.largest]
    known = np.array([value for value in values if value is not None and math.isfinite(value)])
    room = 0.03 * float(np.ptp(known)) or 1.0
    return float(known.min()) - room, float(known.max()) + room


def _legend(picture: Any, height: int, board: Leaderboard, full: bool) -> None:
    present = {row.verdict for row in board.rows}
    handles: list[Any] = [
        Line2D([], [], color=colour, marker=marker, linestyle="", markerfacecolor=colour if filled else PAPER,
               markeredgewidth=1.5, label="random, mean" if verdict == "random" else verdict)
        for verdict, (colour, marker, filled) in MARKS.items()
        if verdict in present
    ]  # fmt: skip
    if board.bands:
        handles.append(Patch(color=POOL, label="random runs"))
    if any(band.low is not None for band in board.bands):
        handles.append(Patch(facecolor=OUTER, edgecolor=GRID, label="95 % of random runs"))
    if full:
        handles.append(Line2D([], [], color=INK, linewidth=1.4, linestyle=(0, (4, 3)), label="full data"))
    look = {"frameon": False, "labelcolor": INK, "prop": {"family": FONT, "size": 9}, "handlelength": 1.5}
    found = picture.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.006, 1 - 54 / height), ncols=4, columnspacing=1.4, **look
    )
    found.set_in_layout(False)
