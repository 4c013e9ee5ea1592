"""Plots of numbers: arrays and table rows in, PNG bytes out; None where there is nothing to show."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter
from numpy.typing import ArrayLike, NDArray

from vsel_platform.reports.style import (
    FONT,
    INK,
    MUTED,
    POOL,
    REFERENCE,
    SELECTED,
    WARNING,
    add_legend,
    count_axis,
    counted,
    label,
    new_figure,
    number,
    style_axes,
    to_png,
)

MAX_BINS = 40
MAX_BARS = 24
MAX_STEPS = 1_000
FEW_ROWS = 20

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TaskBudget:
    """A row of `selected_tasks` [rows]; the selection of the task is n_reference + n_selected."""

    task: str
    n_available: int
    n_reference: int
    budget: int
    n_selected: int
    weight: float = 0.0
    difficulty: float | None = None

    @property
    def n_total(self) -> int:
        """Rows of the task, reference included."""
        return self.n_available + self.n_reference

    @property
    def n_taken(self) -> int:
        """Rows of the task in the selection, reference included."""
        return self.n_reference + self.n_selected


def finite(values: ArrayLike) -> Floats:
    """The finite ones of `values`, flat, float64; None counts as missing."""
    array = np.asarray(values, dtype=np.float64).ravel()
    return array[np.isfinite(array)]


def histogram(
    values: ArrayLike,
    selected: ArrayLike | None = None,
    *,
    title: str,
    xlabel: str,
    line: tuple[float, str] | None = None,
    unit: str = "row",
) -> bytes | None:
    """Distribution of `values` [n], one for each `unit`; with `selected` [m] both as shares of their group, so that
    any budget compares.

    Fewer than 20 values have no distribution to speak of: each is a point (of few selected ones a tick).
    `line` is a value of meaning and its name. None if no value is finite.
    """
    pool = finite(values)
    chosen = finite(selected) if selected is not None else np.empty(0)
    if not pool.size:
        return None
    if pool.size < FEW_ROWS:
        return _strip(pool, chosen, title, xlabel, line, unit)
    edges, beyond = _edges(np.concatenate([pool, chosen]))
    subtitle = f"{counted(pool.size, unit)}, median {np.median(pool):.3g}"
    if chosen.size:
        subtitle += f"; {number(chosen.size)} selected, median {np.median(chosen):.3g}"
    if beyond:
        subtitle += f"; {number(beyond)} beyond the axis are in the outermost bars"
    figure = new_figure(330, title, subtitle)
    axes = figure.subplots()
    scale = 100 / pool.size if chosen.size else 1.0
    axes.stairs(_counts(pool, edges) * scale, edges, fill=True, color=POOL, label=f"all {unit}s")
    if 0 < chosen.size < FEW_ROWS:
        axes.vlines(chosen, 0, 0.08, color=SELECTED, linewidth=1.8, label="selected rows, one tick each",
                    transform=axes.get_xaxis_transform(), zorder=3)  # fmt: skip
    elif chosen.size:
        shares = _counts(chosen, edges) * 100 / chosen.size
        first, last = np.flatnonzero(shares)[[0, -1]]
        part = (shares[first : last + 1], edges[first : last + 2])
        axes.stairs(*part, fill=True, color=SELECTED, alpha=0.28)
        axes.stairs(*part, color=SELECTED, linewidth=1.8, label="selected rows")
    style_axes(axes, xlabel=xlabel, ylabel=f"share of {unit}s [%]" if chosen.size else f"{unit}s")
    if not chosen.size:
        count_axis(axes.yaxis)
    if line is not None and edges[0] <= line[0] <= edges[-1]:
        axes.axvline(line[0], color=WARNING, linewidth=1.4, linestyle=(0, (4, 3)), label=label(line[1], 60))
    if len(axes.get_legend_handles_labels()[0]) > 1:
        add_legend(axes)
    axes.margins(x=0.01)
    return to_png(figure)


def _strip(pool: Floats, chosen: Floats, title: str, xlabel: str, line: tuple[float, str] | None, unit: str) -> bytes:
    """One point per value; equal values are stacked. The selected ones are drawn once more, below."""
    subtitle = f"{counted(pool.size, unit)}, one point each: too few for a histogram; median {np.median(pool):.3g}"
    figure = new_figure(200 if not chosen.size else 230, title, subtitle)
    axes = figure.subplots()
    groups = [("all rows", pool, 1.0, MUTED)] + ([("selected rows", chosen, 0.0, SELECTED)] if chosen.size else [])
    tallest = 0.0
    for _, values, y, colour in groups:
        ordered = np.sort(values)
        repeats = np.arange(ordered.size) - np.searchsorted(ordered, ordered)
        tallest = max(tallest, y + 0.2 * float(repeats.max()))
        axes.scatter(ordered, y + 0.2 * repeats, s=44, c=colour, alpha=0.8, linewidths=0)
    style_axes(axes, xlabel=xlabel, grid="x")
    axes.set_yticks([y for _, _, y, _ in groups], labels=[name for name, *_ in groups])
    axes.margins(x=0.04)
    axes.set_ylim(groups[-1][2] - 0.5, max(tallest, 1.0) + 0.5)
    low, high = axes.get_xlim()
    if line is not None and low <= line[0] <= high:
        axes.axvline(line[0], color=WARNING, linewidth=1.4, linestyle=(0, (4, 3)), label=label(line[1], 60))
        add_legend(axes)
    return to_png(figure)


def _edges(values: Floats) -> tuple[Floats, int]:
    """Bin edges, and how many values lie outside them: a few extreme values must not squeeze all others."""
    low, high = float(values.min()), float(values.max())
    inner_low, inner_high = np.quantile(values, [0.02, 0.98])
    inner = max(inner_high - inner_low, 1e-12)
    if high - low > 4 * inner and values.size >= 50:
        low, high = max(low, inner_low - 0.1 * inner), min(high, inner_high + 0.1 * inner)
    if high - low <= 1e-9 * max(abs(low), abs(high), 1.0):
        pad = 0.05 * abs(low) or 0.5
        low, high = low - pad, high + pad
    # Rice's rule; below eight bins a distribution has no shape.
    bins = min(MAX_BINS, max(8, round(2 * values.size ** (1 / 3))))
    edges = np.linspace(low, high, bins + 1)
    return edges, int(np.count_nonzero((values < low) | (values > high)))


def _counts(values: Floats, edges: Floats) -> NDArray[np.int64]:
    return np.histogram(np.clip(values, edges[0], edges[-1]), bins=edges)[0].astype(np.int64)


def value_bars(
    values: Mapping[str, float | None],
    *,
    title: str,
    xlabel: str,
    subtitle: str = "",
    notes: Mapping[str, str] | None = None,
    colour: str = SELECTED,
    rest: str = "more",
    hatched: Collection[str] = (),
    hatched_name: str = "",
) -> bytes | None:
    """One bar per name, longest first, its value at the end (and its note); a missing value has no bar.

    Bars of the names in `hatched` were not measured; the legend calls them `hatched_name`. Beyond 24 names the rest is
    one line that says how many (`rest` says of what). None if no value is finite.
    """
    known = {k: v for k, v in values.items() if v is not None and np.isfinite(v)}
    if not known:
        return None
    names = sorted(values, key=lambda k: (k not in known, -known.get(k, 0.0), k))
    shown = names if len(names) <= MAX_BARS else names[: MAX_BARS - 1]
    counts = all(value.is_integer() for value in map(float, known.values()))
    texts = []
    for name in shown:
        measure = number(known[name]) if counts and name in known else f"{known.get(name, 0.0):.3f}"
        texts.append(f"{measure} {(notes or {}).get(name, '')}" if name in known else "no value")
    figure, axes = _bar_axes(shown, title, subtitle, more=len(names) - len(shown), rest=rest)
    for row, name in enumerate(shown):
        hollow = {"facecolor": "white", "edgecolor": colour, "hatch": "////"}
        axes.barh(row, known.get(name, 0.0), 0.66, **(hollow if name in hatched else {"color": colour}))
    for row, (name, text) in enumerate(zip(shown, texts, strict=True)):
        _bar_text(axes, max(known.get(name, 0.0), 0.0), row, text)
    style_axes(axes, xlabel=xlabel, grid="x")
    if counts:
        count_axis(axes.xaxis)
    _room(axes, max(len(text) for text in texts))
    if any(name in hatched and name in known for name in shown):
        handles = [axes.barh(0, 0, color=colour, label="measured")]
        handles.append(axes.barh(0, 0, facecolor="white", edgecolor=colour, hatch="////", label=hatched_name))
        add_legend(axes, handles=handles)
    return to_png(figure)


def _bar_axes(
    names: Sequence[str], title: str, subtitle: str, *, more: int = 0, rest: str = "more", row_px: int = 23
) -> tuple[Any, Any]:
    """Figure with one row per name, first on top; `more` further names get a line of their own."""
    labels = [label(name) for name in names] + ([f"({number(more)} {rest})"] if more else [])
    figure = new_figure(112 + row_px * len(labels), title, subtitle)
    axes = figure.subplots()
    axes.set_yticks(range(len(labels)), labels=labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    return figure, axes


def _bar_text(axes: Any, x: float, row: int, text: str, colour: str = INK) -> None:
    axes.annotate(
        label(text, 48), (x, row), (5, 0), textcoords="offset points", va="center",
        size=8.5, color=colour, family=FONT,
    )  # fmt: skip


def _room(axes: Any, characters: int) -> None:
    """Leave room for `characters` behind the longest bar."""
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0.0), high * (1 + 0.0135 * characters + 0.02))
    axes.tick_params(axis="y", labelcolor=INK)


def budget_bars(tasks: Sequence[TaskBudget], *, title: str) -> bytes | None:
    """Per task: all rows, the reference rows and the selected rows in them, and a tick where the budget ends.

    Most selected first. None if there is no task.
    """
    if not tasks:
        return None
    rows = sorted(tasks, key=lambda t: (-t.n_taken, -t.n_total, t.task))
    shown = rows if len(rows) <= MAX_BARS else rows[: MAX_BARS - 1]
    taken, total = sum(t.n_taken for t in rows), sum(t.n_total for t in rows)
    subtitle = f"{number(taken)} of {counted(total, 'row')}"
    short = sum(max(t.budget - t.n_selected, 0) for t in rows)
    subtitle += f"; {counted(short, 'row')} short of the budget" if short else "; every budget is met"
    figure, axes = _bar_axes(
        [t.task for t in shown], title, subtitle, more=len(rows) - len(shown), rest="more tasks", row_px=25
    )
    y = np.arange(len(shown))
    reference = np.array([t.n_reference for t in shown])
    axes.barh(y, [t.n_total for t in shown], 0.72, color=POOL, label="available")
    axes.barh(y, reference, 0.72, color=REFERENCE, label="reference")
    axes.barh(y, [t.n_selected for t in shown], 0.72, left=reference, color=SELECTED, label="selected")
    ends = reference + np.array([t.budget for t in shown])
    axes.vlines(ends, y - 0.46, y + 0.46, color=INK, linewidth=1.8, label="budget")
    texts = [f"{number(t.n_taken)} of {number(t.n_total)}" for t in shown]
    for row, text in enumerate(texts):
        _bar_text(axes, max(shown[row].n_total, float(ends[row])), row, text)
    style_axes(axes, xlabel="rows", grid="x")
    count_axis(axes.xaxis)
    _room(axes, max(len(text) for text in texts))
    add_legend(axes)
    return to_png(figure)


def energy_curve(variances: ArrayLike, *, title: str) -> bytes | None:
    """Share of the variance that the leading principal directions hold, given the variances [d] of all of them.

    None without any variance.
    """
    ordered = np.sort(np.maximum(finite(variances), 0.0))[::-1]
    if not ordered.sum():
        return None
    share = ordered.cumsum() / ordered.sum()
    needed = {level: int(np.searchsorted(share, level - 1e-12)) + 1 for level in (0.9, 0.99)}
    told = ", ".join(f"{level:.0%} in {number(count)}" for level, count in needed.items())
    figure = new_figure(330, title, f"{counted(len(ordered), 'direction')}; of the variance {told}")
    axes = figure.subplots()
    axes.plot(np.arange(1, len(share) + 1), 100 * share, color=SELECTED, linewidth=2.0)
    for level, count in needed.items():
        axes.axhline(100 * level, color=REFERENCE, linewidth=0.8)
        axes.plot([count], [100 * level], marker="o", color=SELECTED, markersize=5)
    axes.set_xscale("log")
    style_axes(axes, xlabel="leading directions", ylabel="share of the variance [%]")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(round(value))))
    axes.set_ylim(0, 102)
    count_axis(axes.yaxis)
    return to_png(figure)


def loss_curve(losses: ArrayLike, *, title: str) -> bytes | None:
    """Training loss per step [nat/token] and its running mean. None if no loss is finite."""
    values = np.asarray(losses, dtype=np.float64).ravel()
    usable = np.isfinite(values)
    if not usable.any():
        return None
    steps = np.flatnonzero(usable) + 1
    kept = values[usable]
    window = max(1, min(50, kept.size // 10))
    smooth = np.convolve(kept, np.ones(window) / window, mode="valid")
    ends = (
        "first {:.3g}, last {:.3g}"
        if window == 1
        else f"mean of the first {window}: {{:.3g}}, of the last {window}: {{:.3g}}"
    )
    subtitle = f"{counted(values.size, 'step')}; {ends.format(smooth[0], smooth[-1])}"
    missing = values.size - kept.size
    if missing:
        subtitle += f"; {counted(missing, 'step')} without a finite loss"
    figure = new_figure(330, title, subtitle)
    axes = figure.subplots()
    few = kept.size <= 60
    thin = slice(None, None, max(1, kept.size // MAX_STEPS))
    axes.plot(steps[thin], kept[thin], color=REFERENCE, linewidth=1.0, alpha=0.9, label="step",
              marker="o" if few else "", markersize=3)  # fmt: skip
    if window > 1:
        axes.plot(
            steps[window - 1 :][thin], smooth[thin], color=SELECTED, linewidth=2.2, label=f"mean of {window} steps"
        )
        add_legend(axes)
    style_axes(axes, xlabel="step", ylabel="loss [nat/token]")
    axes.set_xlim(min(1, steps[0]) - 0.5, values.size + 0.5)
    count_axis(axes.xaxis)
    return to_png(figure)
