"""Texts of a drawn matplotlib figure, and those that lie over each other or beyond its edge."""

from itertools import chain, combinations
from typing import Any


def visible_texts(figure: Any) -> list[Any]:
    """All texts that are drawn; ticks beyond the ends of an axis are not."""
    found = [*figure.texts, *chain(*(legend.get_texts() for legend in figure.legends))]
    for axes in figure.axes:
        found += [*axes.texts, axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=False)
            found += [text for place, text in ticks if low <= place <= high]
    return [text for text in found if text.get_visible() and text.get_text().strip()]


def colliding_texts(figure: Any) -> list[tuple[str, str]]:
    """Pairs of texts that overlap; a text beyond an edge of the figure stands with `edge`."""
    boxes = [(text.get_text(), text.get_window_extent()) for text in visible_texts(figure)]
    pairs = [(a, b) for (a, one), (b, other) in combinations(boxes, 2) if one.overlaps(other)]
    width, height = figure.bbox.x1, figure.bbox.y1
    inside = [(name, box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height) for name, box in boxes]
    return pairs + [(name, "edge") for name, within in inside if not within]
