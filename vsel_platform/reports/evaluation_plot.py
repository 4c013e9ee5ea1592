"""Plot of an evaluation: exact match and loss per task, before and after fine-tuning."""

from collections.abc import Sequence
from typing import Any

from vsel_platform.evaluation.gains import TaskComparison
from vsel_platform.reports.style import (
    FONT,
    INK,
    MUTED,
    POOL,
    SELECTED,
    WARNING,
    add_legend,
    counted,
    label,
    new_figure,
    number,
    style_axes,
    to_png,
)

MAX_TASKS = 20
ROW_PX = 40
BAR = 0.32
HATCH = "////"
# Metrics that are a share of right answers; F1 or a share of whole groups of questions is none.
ANSWER_SHARES = ("exact match", "accuracy", "multiple choice")


def evaluation_bars(results: Sequence[TaskComparison], *, title: str, measure: str = "exact match") -> bytes | None:
    """The headline metric with 95 % intervals beside the loss, before and after fine-tuning, and a verdict per task.

    Beyond 20 tasks the rest is one line that says how many. None if there is nothing.
    """
    if not results:
        return None
    shown = list(results)[:MAX_TASKS]
    more = len(results) - len(shown)
    figure = new_figure(132 + ROW_PX * (len(shown) + bool(more)), title, _subtitle(results))
    exact, loss = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for row, result in enumerate(shown):
        good = result.verdict == "learned"
        tuned = _solid(SELECTED) if good else _hollow(WARNING)
        exact.barh(row - 0.18, result.base, BAR, **_solid(POOL))
        exact.barh(row + 0.18, result.tuned, BAR, **tuned)
        for y, interval in ((row - 0.18, result.base_interval), (row + 0.18, result.tuned_interval)):
            if interval[0] < interval[1]:
                exact.hlines(y, *interval, color=INK, linewidth=1.3)
        _loss(loss, row, result)
    style_axes(exact, xlabel=f"{measure} [{_unit(results[0].unit, measure)}]", grid="x")
    style_axes(loss, xlabel="loss [nat/token]", grid="x")
    _tasks(exact, shown, more)
    exact.set_xlim(0, 100 if results[0].unit == "percent" else None)
    loss.set_xlim(0, 1.35 * max([1e-3, *(value for r in shown for value in (r.base_loss, r.tuned_loss) if value)]))
    _legend(exact)
    return to_png(figure)


def _subtitle(results: Sequence[TaskComparison]) -> str:
    counts = {verdict: sum(r.verdict == verdict for r in results) for verdict in ("learned", "worse")}
    text = f"{counts['learned']} of {len(results)} tasks learned (beyond the 95 % interval), {counts['worse']} worse"
    never = [r for r in results if r.never_right]
    loss = ": see the loss" if any(r.tuned_loss is not None for r in never) else ""
    return text + (f"; {counted(len(never), 'task')} without any right answer{loss}" if never else "")


def nothing_right(results: Sequence[TaskComparison], measure: str) -> list[str]:
    """A sentence about the tasks of which no answer is right before or after; none if there is no such task."""
    never = [r for r in results if r.never_right]
    if not never:
        return []
    loss = "; their loss can" if all(r.tuned_loss is not None for r in never) else ""
    tasks = ", ".join(sorted({r.task for r in never}))
    return [f"No answer is right before or after in: {tasks}. What was learned of them {measure} cannot show{loss}."]


def _unit(unit: str, measure: str) -> str:
    if unit != "percent":
        return unit
    return "% of answers" if measure in ANSWER_SHARES else "%"


def _solid(colour: str) -> dict[str, Any]:
    return {"color": colour}


def _hollow(colour: str) -> dict[str, Any]:
    return {"facecolor": "white", "edgecolor": colour, "hatch": HATCH}


def _loss(axes: Any, row: int, result: TaskComparison) -> None:
    if result.base_loss is None or result.tuned_loss is None:
        return
    axes.barh(row - 0.18, result.base_loss, BAR, **_solid(POOL))
    axes.barh(row + 0.18, result.tuned_loss, BAR, **(_hollow(WARNING) if result.loss_rises else _solid(SELECTED)))
    for y, value, colour in (
        (row - 0.18, result.base_loss, MUTED),
        (row + 0.18, result.tuned_loss, WARNING if result.loss_rises else INK),
    ):
        axes.annotate(f"{value:.2f}", (value, y), (4, 0), textcoords="offset points", va="center",
                      size=8, color=colour, family=FONT)  # fmt: skip


def _tasks(axes: Any, shown: Sequence[TaskComparison], more: int) -> None:
    """Names of the tasks with their verdicts below; what was not learned is coloured."""
    names = [f"{label(r.task, 24)}\n{r.verdict}" for r in shown] + ([f"({number(more)} more tasks)"] if more else [])
    axes.set_yticks(range(len(names)), labels=names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    for text, result in zip(axes.get_yticklabels(), shown, strict=False):
        text.set_color(INK if result.verdict == "learned" else WARNING)


def _legend(axes: Any) -> None:
    handles = [
        axes.barh(0, 0, label="base model", **_solid(POOL)),
        axes.barh(0, 0, label="tuned", **_solid(SELECTED)),
        axes.barh(0, 0, label="tuned: not learned, or loss higher", **_hollow(WARNING)),
        axes.plot([], [], color=INK, linewidth=1.3, label="95 % interval")[0],
    ]
    add_legend(axes, handles=handles)
    # The legend stands over both axes: it must not widen the first. The empty title keeps its height free.
    axes.get_legend().set_in_layout(False)
    axes.set_title(" ", size=10)
