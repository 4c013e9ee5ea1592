"""Colour names of drawings, counted from pixels."""

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from vsel_platform.demo.artwork import Drawing, render

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLOURS = ("black", "white", "grey", "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")
MAIN_SHARE = 0.4
"""A drawing has a main colour if this share of its opaque pixels has it."""
VISIBLE_SHARE = 0.15
ABSENT_SHARE = 0.005
_OPAQUE_ALPHA = 200
_HUE_NAMES = ((15, "red"), (40, "orange"), (63, "yellow"), (172, "green"), (255, "blue"), (290, "purple"))
_FIRST_PINK_HUE, _LAST_PINK_HUE = 290, 345


def name_pixels(rgb: "NDArray[np.uint8]") -> "NDArray[np.int64]":
    """Index into `COLOURS` of every pixel: uint8 [n, 3] -> int64 [n].

    Rules on hue, saturation and value: dark is black; unsaturated is white or grey by value; dark orange and
    yellow are brown; light red is pink; otherwise the hue decides.
    """
    hue, saturation, value = _hsv(rgb.astype(np.float64) / 255)
    bounds = [bound for bound, _ in _HUE_NAMES]
    names = [name for _, name in _HUE_NAMES] + ["red"]
    index = np.array([COLOURS.index(name) for name in names])[np.digitize(hue, bounds)]
    pink = (hue >= _FIRST_PINK_HUE) & (hue < _LAST_PINK_HUE)
    reddish = (hue < 15) | (hue >= _LAST_PINK_HUE)
    index[pink | (reddish & (saturation < 0.55) & (value > 0.7))] = COLOURS.index("pink")
    dull = (value < 0.68) | ((value < 0.8) & (saturation < 0.62) & (hue < 25))
    index[(hue >= 8) & (hue < 50) & dull] = COLOURS.index("brown")
    index[(saturation < 0.15) & (value <= 0.85)] = COLOURS.index("grey")
    index[(saturation < 0.15) & (value > 0.85)] = COLOURS.index("white")
    index[(value < 0.22) | ((value < 0.35) & (saturation < 0.3))] = COLOURS.index("black")
    return index


def _hsv(rgb: "NDArray[np.float64]") -> "tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]":
    value, low = rgb.max(axis=1), rgb.min(axis=1)
    spread = value - low
    safe = np.where(spread > 0, spread, 1.0)
    red, green, blue = rgb.T
    hue = np.select(
        [value == red, value == green],
        [(green - blue) / safe % 6, (blue - red) / safe + 2],
        (red - green) / safe + 4,
    )
    return np.where(spread > 0, hue * 60, 0.0), spread / np.where(value > 0, value, 1.0), value


@lru_cache(maxsize=8192)
def colour_shares(drawing: Drawing) -> dict[str, float]:
    """Share of every colour among the opaque pixels of a drawing; the shares add up to 1 (0 if none is opaque)."""
    pixels = np.asarray(render(drawing)).reshape(-1, 4)
    opaque = pixels[pixels[:, 3] >= _OPAQUE_ALPHA, :3]
    counts = np.bincount(name_pixels(opaque), minlength=len(COLOURS))
    total = max(1, len(opaque))
    return {name: int(count) / total for name, count in zip(COLOURS, counts, strict=True)}


def main_colour(drawing: Drawing) -> str | None:
    """The colour of at least 40 % of the opaque pixels, or None if there is no such colour."""
    shares = colour_shares(drawing)
    best = max(COLOURS, key=lambda name: shares[name])
    return best if shares[best] >= MAIN_SHARE else None


def visible_colours(drawing: Drawing) -> list[str]:
    """Colours of at least 15 % of the opaque pixels, largest share first (ties in the order of `COLOURS`)."""
    shares = colour_shares(drawing)
    ranked = sorted(COLOURS, key=lambda name: -shares[name])
    return [name for name in ranked if shares[name] >= VISIBLE_SHARE]


def absent_colours(drawing: Drawing) -> list[str]:
    """Colours of less than 0.5 % of the opaque pixels, in the order of `COLOURS`."""
    shares = colour_shares(drawing)
    return [name for name in COLOURS if shares[name] < ABSENT_SHARE]
