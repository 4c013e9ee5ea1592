"""Embedding map: images in the plane of their two strongest principal components."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vsel_platform.reports.style import (
    CATEGORIES,
    INK,
    OTHER,
    add_legend,
    counted,
    label,
    new_figure,
    number,
    style_axes,
    to_png,
)

MARKERS = "osD^vP<X>*"


def principal_plane(vectors: ArrayLike) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """Coordinates [n, 2] of `vectors` [n, d] on their first two principal components, and the variance shares.

    PCA by the singular value decomposition of the centred vectors. Signs are fixed (the largest loading of a component
    is positive), so equal data give an equal map. A component that does not exist is 0 with share 0.
    """
    matrix = np.asarray(vectors, dtype=np.float64)
    centred = matrix - matrix.mean(axis=0)
    _, singular, components = np.linalg.svd(centred, full_matrices=False)
    total = float((singular**2).sum())
    plane = np.zeros((len(matrix), 2))
    shares = [0.0, 0.0]
    for i in range(min(2, len(singular))):
        axis = components[i]
        sign = 1.0 if axis[np.argmax(np.abs(axis))] >= 0 else -1.0
        plane[:, i] = sign * (centred @ axis)
        shares[i] = float(singular[i] ** 2) / total if total > 0 else 0.0
    return plane, (shares[0], shares[1])


def embedding_map(
    vectors: ArrayLike,
    tasks: Sequence[str],
    selected: Sequence[bool] | None = None,
    *,
    title: str,
    sampled: bool = False,
) -> bytes | None:
    """Map of `vectors` [n, d] coloured by `tasks` [n]; images of `selected` [n] stand out.

    `sampled` says that there are more images than these. Rows with a non-finite component are left out.
    None with fewer than three vectors: there is no plane to show.
    """
    matrix = np.asarray(vectors, dtype=np.float64)
    if matrix.ndim != 2 or not matrix.size:
        return None
    keep = np.isfinite(matrix).all(axis=1)
    if np.count_nonzero(keep) < 3:
        return None
    plane, shares = principal_plane(matrix[keep])
    names = np.asarray(tasks, dtype=object)[keep]
    chosen = np.asarray(selected, dtype=bool)[keep] if selected is not None else np.zeros(len(plane), bool)
    subtitle = counted(len(plane), "image")
    if sampled:
        subtitle = "a fixed sample of " + subtitle
    if selected is not None:
        subtitle += f", {number(int(chosen.sum()))} of them selected"
    figure = new_figure(500, title, subtitle + "; near points look alike to the encoder")
    axes = figure.subplots()
    _scatter(axes, plane, names, chosen, highlight=selected is not None)
    axes.set_xticks([])
    axes.set_yticks([])
    style_axes(
        axes,
        xlabel=f"principal component 1 ({shares[0]:.0%} of the variance)",
        ylabel=f"principal component 2 ({shares[1]:.0%})",
        grid="both",
    )
    add_legend(axes, loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0, handletextpad=0.3)
    return to_png(figure)


def _groups(names: NDArray[Any]) -> list[tuple[str, NDArray[np.bool_], str, str]]:
    """(legend, mask, colour, marker) of the largest tasks, and of all the others together."""
    counts = Counter(names.tolist())
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    own = ranked if len(ranked) <= len(CATEGORIES) else ranked[: len(CATEGORIES) - 1]
    groups = [(label(name, 20), names == name, CATEGORIES[i], MARKERS[i]) for i, name in enumerate(own)]
    if len(own) < len(ranked):
        rest = ~np.isin(names.astype(str), np.array(own, dtype=str))
        groups.append((f"({len(ranked) - len(own)} more tasks)", rest, OTHER, "."))
    return groups


def _scatter(
    axes: Any, plane: NDArray[np.float64], names: NDArray[Any], chosen: NDArray[np.bool_], *, highlight: bool
) -> None:
    for text, mask, colour, marker in _groups(names):
        quiet = plane[mask & ~chosen]
        axes.scatter(
            quiet[:, 0], quiet[:, 1], s=9, c=colour, marker=marker, alpha=0.3 if highlight else 0.65, linewidths=0
        )
        loud = plane[mask & chosen]
        axes.scatter(loud[:, 0], loud[:, 1], s=26, c=colour, marker=marker, edgecolors=INK, linewidths=0.7, zorder=3)
        axes.scatter([], [], s=34, c=colour, marker=marker, label=text)
    if highlight:
        axes.scatter([], [], s=30, c="white", marker="o", edgecolors=INK, linewidths=0.9, label="selected")
