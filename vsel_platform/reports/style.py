"""The look that all plots share: palette, text that fonts can draw, a figure with a header, small PNGs."""

import io
import unicodedata
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator

if TYPE_CHECKING:
    from PIL import Image

WIDTH_PX = 720
DPI = 100
MAX_PNG_BYTES = 90_000
HEADER_PX = 58
FONT = "DejaVu Sans"

PAPER = "#ffffff"
INK = "#1f2933"
MUTED = "#5f6b78"
GRID = "#e6eaee"
POOL = "#c5ced8"
# Okabe and Ito's palette: distinguishable with the common colour vision deficiencies.
REFERENCE = "#56b4e9"
SELECTED = "#0072b2"
WARNING = "#d55e00"


@cache
def font_path(*, bold: bool = False) -> Path:
    """File of the font that plots use; matplotlib brings it along."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return Path(mpl.get_data_path()) / "fonts" / "ttf" / name


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(FT2Font(str(font_path())).get_charmap())


def drawable(text: str, limit: int) -> str:
    """`text` on one line of at most `limit` characters, with a box for each character that the font lacks."""
    line = " ".join(text.split())
    known = _glyphs()
    shown = [c for c in line if not unicodedata.category(c).startswith(("C", "M")) or ord(c) in known]
    boxed = " ".join("".join(c if ord(c) in known else "\u25a1" for c in shown).split())
    return boxed if len(boxed) <= limit else boxed[: max(limit - 1, 0)].rstrip() + "…"


def label(text: str, limit: int = 28) -> str:
    """`text` for matplotlib: drawable, and a `$` is a dollar, not the begin of a formula."""
    return drawable(text, limit).replace("$", r"\$")


def number(value: float) -> str:
    """A count with thousands separators, or a measure with three significant digits."""
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def counted(n: int, noun: str) -> str:
    """`1 row`, `2 rows`: a count with its noun."""
    return f"{number(n)} {noun}" + ("" if n == 1 else "s")


def new_figure(height_px: int, title: str, subtitle: str = "", *, legend_px: int = 0) -> Figure:
    """A figure of 720 x `height_px` pixels with its header; the layout keeps axes below it and `legend_px` more."""
    figure = Figure(figsize=(WIDTH_PX / DPI, height_px / DPI), dpi=DPI, facecolor=PAPER)
    top = 1 - ((HEADER_PX if subtitle else HEADER_PX - 18) + legend_px) / height_px
    figure.set_layout_engine(ConstrainedLayoutEngine(rect=(0.004, 0.01, 0.984, top - 0.01)))
    header: dict[str, Any] = {"ha": "left", "va": "top", "family": FONT}
    figure.text(0.014, 1 - 12 / height_px, label(title, 80), size=11.5, weight="bold", color=INK, **header)
    figure.text(0.014, 1 - 35 / height_px, label(subtitle, 108), size=9, color=MUTED, **header)
    return figure


def style_axes(axes: Any, *, xlabel: str, ylabel: str = "", grid: str = "y") -> None:
    """Quiet axes: no box, a light grid along `grid` (x, y, or both) behind the data, labels in the shared font."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRID)
    axes.set_axisbelow(True)
    axes.grid(visible=True, axis=grid, color=GRID, linewidth=0.8)
    axes.tick_params(colors=MUTED, length=0, labelsize=9, labelfontfamily=FONT)
    axes.set_xlabel(label(xlabel, 100), size=9.5, color=INK, family=FONT)
    axes.set_ylabel(label(ylabel, 60), size=9.5, color=INK, family=FONT)


def count_axis(axis: Any) -> None:
    """Ticks of an axis that counts: whole numbers with thousands separators."""
    axis.set_major_locator(MaxNLocator(nbins="auto", integer=True, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))


def add_legend(axes: Any, **options: Any) -> None:
    """Legend without a frame, in one line above the axes unless `options` place it elsewhere."""
    above = {"loc": "lower left", "bbox_to_anchor": (0, 1.0), "ncols": 4, "borderaxespad": 0.2}
    look = {"frameon": False, "labelcolor": INK, "handlelength": 1.3, "columnspacing": 1.6}
    axes.legend(**(look | {"prop": {"family": FONT, "size": 9}} | (options if "loc" in options else above | options)))


def to_png(figure: Figure) -> bytes:
    """Draw a figure. Equal data give equal bytes (no date, no version inside)."""
    import numpy as np
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())
    return pack_png(Image.fromarray(pixels).convert("RGB"))


def pack_png(image: "Image.Image", *, dither: bool = False, limit_bytes: int = MAX_PNG_BYTES) -> bytes:
    """A PNG with a palette: as many colours (256 down to 8) as fit into `limit_bytes`.

    Raises ValueError if 8 colours are too many still.
    """
    from PIL import Image

    for colours in (256, 128, 64, 32, 16, 8):
        packed = image.quantize(colours, method=Image.Quantize.MEDIANCUT)
        if dither:
            packed = image.quantize(colours, palette=packed, dither=Image.Dither.FLOYDSTEINBERG)
        _exact_corner(packed, image)
        sink = io.BytesIO()
        packed.save(sink, "PNG", optimize=True)
        if sink.tell() <= limit_bytes:
            return sink.getvalue()
    raise ValueError(f"an image of {image.width} x {image.height} pixels does not fit into {limit_bytes} bytes")


def _exact_corner(packed: "Image.Image", image: "Image.Image") -> None:
    """Give the palette entry of the corner its exact colour: averaging colours makes white paper greyish."""
    palette = packed.getpalette() or []
    index = packed.getpixel((0, 0))
    colour = image.getpixel((0, 0))
    if isinstance(index, int) and isinstance(colour, tuple):
        palette[3 * index : 3 * index + 3] = [int(part) for part in colour[:3]]
        packed.putpalette(palette)
