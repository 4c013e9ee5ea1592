"""Embedding map: images in the plane of their two strongest principal components, one panel per task."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vsel_platform.reports.style import (
    DPI,
    FONT,
    GRID,
    HEADER_PX,
    INK,
    SELECTED,
    add_legend,
    counted,
    label,
    new_figure,
    number,
    to_png,
)

MAX_PANELS = 12
PANEL_PX = 165
LEGEND_PX = 30
HEADER_AND_LABELS_PX = 128
OTHERS = "#d5dbe2"
QUIET = "#7d8996"


def principal_plane(vectors: ArrayLike) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """Coordinates [n, 2] of `vectors` [n, d] on their first two principal components, and the variance shares.

    Principal components are eigenvectors of the d x d scatter matrix, or with fewer vectors than dimensions right
    singular vectors. Signs are fixed (the largest loading of a component is positive), so equal data give an equal map.
    A component that does not exist is 0 with share 0.
    """
    matrix = np.asarray(vectors, dtype=np.float64)
    centred = matrix - matrix.mean(axis=0)
    if len(centred) > centred.shape[1]:
        # Several times faster than the decomposition of the vectors themselves.
        energies, axes = np.linalg.eigh(centred.T @ centred)
        energies, components = np.maximum(energies[::-1], 0.0), axes.T[::-1]
    else:
        _, singular, components = np.linalg.svd(centred, full_matrices=False)
        energies = singular**2
    total = float(energies.sum())
    plane = np.zeros((len(matrix), 2))
    shares = [0.0, 0.0]
    for i in range(min(2, len(energies))):
        axis = components[i]
        sign = 1.0 if axis[np.argmax(np.abs(axis))] >= 0 else -1.0
        plane[:, i] = sign * (centred @ axis)
        shares[i] = float(energies[i]) / total if total > 0 else 0.0
    return plane, (shares[0], shares[1])


def embedding_map(
    vectors: ArrayLike,
    tasks: Sequence[str],
    selected: Sequence[bool] | None = None,
    *,
    title: str,
    sampled: bool = False,
    unit: str = "image",
) -> bytes | None:
    """Map of `vectors` [n, d], a panel for each of `tasks` [n] (the largest 11, and the others together).

    Every panel shows all contents pale and its task's grey, those of `selected` [n] in colour.
    `sampled` says that there are more than these, `unit` what one of them is. Rows with a non-finite component are
    left out. None with fewer than three vectors: there is no plane to show.
    """
    matrix = np.asarray(vectors, dtype=np.float64)
    if matrix.ndim != 2 or not matrix.size:
        return None
    keep = np.isfinite(matrix).all(axis=1)
    if np.count_nonzero(keep) < 3:
        return None
    plane, shares = principal_plane(matrix[keep])
    names = np.asarray(tasks, dtype=object)[keep]
    chosen = np.asarray(selected, dtype=bool)[keep] if selected is not None else None
    panels = _panels(names)
    n_columns = _columns(len(panels))
    n_rows = -(-len(panels) // n_columns)
    height = HEADER_AND_LABELS_PX + max(300, PANEL_PX * n_rows)
    figure = new_figure(
        height, title, _subtitle(counted(len(plane), unit), chosen, shares, sampled=sampled), legend_px=LEGEND_PX
    )
    grid = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False)
    for axes, (name, mask) in zip(grid.flat, panels, strict=False):
        _panel(axes, plane, mask, chosen, name, unit)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    words: dict[str, Any] = {"size": 9, "color": INK, "family": FONT}
    figure.supxlabel(f"principal component 1 ({shares[0]:.0%} of the variance)", **words)
    figure.supylabel(f"principal component 2 ({shares[1]:.0%})", **words)
    _legend(figure, unit, with_selection=chosen is not None)
    return to_png(figure)


def _subtitle(all_of_them: str, chosen: NDArray[np.bool_] | None, shares: tuple[float, float], *, sampled: bool) -> str:
    text = ("a fixed sample of " if sampled else "") + all_of_them
    if chosen is not None:
        text += f", {number(int(chosen.sum()))} selected"
    return f"{text}; a rough view: two components hold {sum(shares):.0%} of the variance"


def _panels(names: NDArray[Any]) -> list[tuple[str, NDArray[np.bool_]]]:
    """(name, mask) of the largest tasks, and of all the others together."""
    counts = Counter(names.tolist())
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    own = ranked if len(ranked) <= MAX_PANELS else ranked[: MAX_PANELS - 1]
    panels = [(label(name, 18), names == name) for name in own]
    if len(own) < len(ranked):
        rest = ~np.isin(names.astype(str), np.array(own, dtype=str))
        panels.append((f"({len(ranked) - len(own)} more tasks)", rest))
    return panels


def _columns(n_panels: int) -> int:
    """Columns of the grid: at most four, and few empty places."""
    return {1: 1, 2: 2, 3: 3, 5: 3, 6: 3, 9: 3}.get(n_panels, 4)


def _panel(
    axes: Any,
    plane: NDArray[np.float64],
    mask: NDArray[np.bool_],
    chosen: NDArray[np.bool_] | None,
    name: str,
    unit: str,
) -> None:
    count = counted(int(mask.sum()), unit)
    size = float(np.clip(4000 / len(plane), 7, 20))
    others = plane[~mask]
    axes.scatter(others[:, 0], others[:, 1], s=0.6 * size, c=OTHERS, linewidths=0)
    if chosen is None:
        own = plane[mask]
        axes.scatter(own[:, 0], own[:, 1], s=size, c=SELECTED, alpha=0.7, linewidths=0)
    else:
        quiet, loud = plane[mask & ~chosen], plane[mask & chosen]
        axes.scatter(quiet[:, 0], quiet[:, 1], s=size, c=QUIET, linewidths=0)
        axes.scatter(loud[:, 0], loud[:, 1], s=2 * size, c=SELECTED, linewidths=0.4, edgecolors="white", zorder=3)
        count = f"{number(len(loud))} of {count}"
    axes.set_title(f"{name}: {count}", size=8.5, color=INK, family=FONT, pad=3)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(GRID)


def _legend(figure: Any, unit: str, *, with_selection: bool) -> None:
    """One legend for all panels, above them."""
    marks = [(f"{unit}s of other tasks", OTHERS)]
    marks += (
        [("not selected", QUIET), ("selected", SELECTED)] if with_selection else [(f"{unit}s of the task", SELECTED)]
    )
    handles = [figure.axes[0].scatter([], [], s=24, c=colour, linewidths=0, label=name) for name, colour in marks]
    below_header = (0.004, 1 - HEADER_PX / (figure.get_figheight() * DPI))
    add_legend(figure, handles=handles, loc="upper left", bbox_to_anchor=below_header, ncols=3, handletextpad=0.2)
    figure.legends[0].set_in_layout(False)
