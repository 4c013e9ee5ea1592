"""Plots of a training besides its loss: answers and questions apart, and throughput."""

from collections.abc import Mapping, Sequence

import numpy as np

from vsel_platform.reports.style import (
    MUTED,
    REFERENCE,
    SELECTED,
    add_legend,
    count_axis,
    counted,
    new_figure,
    style_axes,
    to_png,
)

MAX_STEPS = 1000


def split_losses(record: Mapping[str, Sequence[float]], *, title: str) -> bytes | None:
    """Mean loss of answers and of own questions per step [nat/token]; None if no question was learned."""
    names = {"answer_loss": ("answers", SELECTED), "question_loss": ("own questions", REFERENCE)}
    columns = {name: np.asarray(record.get(name, ()), dtype=np.float64) for name in names}
    if not np.isfinite(columns["question_loss"]).any():
        return None
    figure = new_figure(330, title, "means over the tokens of a step; the model learns both")
    axes = figure.subplots()
    for name, (text, colour) in names.items():
        steps = np.flatnonzero(np.isfinite(columns[name]))
        thin = steps[:: max(1, len(steps) // MAX_STEPS)]
        axes.plot(thin + 1, columns[name][thin], color=colour, linewidth=1.4, label=text)
    add_legend(axes)
    style_axes(axes, xlabel="step", ylabel="loss [nat/token]")
    count_axis(axes.xaxis)
    return to_png(figure)


def throughput_curve(points: Sequence[Sequence[float]], *, title: str) -> bytes | None:
    """Rows and tokens per second over the steps, from (step, rows/s, tokens/s); None without points."""
    if not points:
        return None
    values = np.asarray(points, dtype=np.float64)
    rows = f"{np.median(values[:, 1]):,.1f} rows/s"
    subtitle = f"{counted(int(values[-1, 0]), 'step')}; median {rows}, {np.median(values[:, 2]):,.0f} tokens/s"
    figure = new_figure(330, title, subtitle)
    axes = figure.subplots()
    axes.plot(values[:, 0], values[:, 1], color=SELECTED, linewidth=1.8, marker="o", markersize=3, label="rows/s")
    style_axes(axes, xlabel="step", ylabel="rows/s")
    axes.set_ylim(bottom=0)
    right = axes.twinx()
    right.plot(values[:, 0], values[:, 2], color=MUTED, linewidth=1.2, linestyle="--", label="tokens/s")
    style_axes(right, xlabel="step", ylabel="tokens/s")
    right.set_ylim(bottom=0)
    right.grid(visible=False)
    handles = [*axes.get_lines(), *right.get_lines()]
    add_legend(axes, handles=handles)
    count_axis(axes.xaxis)
    return to_png(figure)
