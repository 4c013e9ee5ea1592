"""Contact sheets: small pictures with captions, drawn with Pillow so that each pixel of a picture is its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from PIL import Image, ImageDraw, ImageFont

from vsel_platform.reports.style import (
    GRID,
    HEADER_PX,
    INK,
    MUTED,
    PAPER,
    SELECTED,
    WIDTH_PX,
    drawable,
    font_path,
    pack_png,
)

PER_ROW = 6
MARGIN_PX = 12
TILE_PX = (WIDTH_PX - MARGIN_PX * (PER_ROW + 1)) // PER_ROW
LINE_PX = 15
TEXT_LINES = 3
SECTION_PX = 26
CAPTION_PX = LINE_PX * (TEXT_LINES + 2) + 8


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture with its caption: task, a short text, a measure. `image` None: a row without a (readable) picture."""

    image: Image.Image | None
    task: str
    text: str
    measure: str = ""
    missing: str = "text only"


def thumbnail(image: Image.Image, size_px: int = TILE_PX) -> Image.Image:
    """A copy on a paper-coloured square of `size_px`; pictures smaller than half of it are enlarged in whole steps."""
    copy = image.convert("RGBA")
    factor = size_px // max(copy.size)
    if factor > 1:
        copy = copy.resize((copy.width * factor, copy.height * factor), Image.Resampling.NEAREST)
    else:
        copy.thumbnail((size_px, size_px), Image.Resampling.LANCZOS)
    sheet = Image.new("RGB", (size_px, size_px), PAPER)
    sheet.paste(copy, ((size_px - copy.width) // 2, (size_px - copy.height) // 2), copy)
    return sheet


def contact_sheet(sections: Sequence[tuple[str, Sequence[Tile]]], *, title: str, subtitle: str = "") -> bytes | None:
    """Sections of up to six tiles, each under its heading. None if no section has a tile."""
    filled = [(heading, list(tiles)[:PER_ROW]) for heading, tiles in sections if tiles]
    if not filled:
        return None
    row_px = SECTION_PX + TILE_PX + CAPTION_PX
    sheet = Image.new("RGB", (WIDTH_PX, HEADER_PX + row_px * len(filled)), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((10, 10), drawable(title, 80), fill=INK, font=_font(16, bold=True))
    draw.text((10, 33), drawable(subtitle, 108), fill=MUTED, font=_font(12))
    for row, (heading, tiles) in enumerate(filled):
        top = HEADER_PX + row * row_px
        draw.text((MARGIN_PX, top + 3), drawable(heading, 80), fill=SELECTED, font=_font(13, bold=True))
        for column, tile in enumerate(tiles):
            left = MARGIN_PX + column * (TILE_PX + MARGIN_PX)
            _draw_tile(sheet, draw, tile, left, top + SECTION_PX)
    return pack_png(sheet, dither=True)


def _draw_tile(sheet: Image.Image, draw: ImageDraw.ImageDraw, tile: Tile, left: int, top: int) -> None:
    if tile.image is not None:
        sheet.paste(thumbnail(tile.image), (left, top))
    else:
        draw.text(
            (left + TILE_PX / 2, top + TILE_PX / 2), drawable(tile.missing, 18), fill=MUTED, font=_font(12), anchor="mm"
        )
    draw.rectangle((left - 1, top - 1, left + TILE_PX, top + TILE_PX), outline=GRID)
    bold, plain = _font(11, bold=True), _font(11)
    y = top + TILE_PX + 4
    draw.text((left, y), _fit(tile.task, bold), fill=INK, font=bold)
    if tile.measure:
        y += LINE_PX
        draw.text((left, y), _fit(tile.measure, plain), fill=SELECTED, font=plain)
    for line in _wrap(tile.text, plain):
        y += LINE_PX
        draw.text((left, y), line, fill=MUTED, font=plain)


@cache
def _font(size_px: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(font_path(bold=bold)), size_px, layout_engine=ImageFont.Layout.BASIC)


def _fit(text: str, font: ImageFont.FreeTypeFont) -> str:
    """The longest begin of `text` that is not wider than a tile."""
    length = 60
    line = drawable(text, length)
    while font.getlength(line) > TILE_PX and length > 1:
        length = min(length, len(line)) - 1
        line = drawable(text, length)
    return line


def _wrap(text: str, font: ImageFont.FreeTypeFont) -> list[str]:
    """At most three lines of the width of a tile; what does not fit is cut with an ellipsis."""
    words = drawable(text, 120).split()
    lines: list[str] = []
    while words and len(lines) < TEXT_LINES:
        if len(lines) == TEXT_LINES - 1:
            lines.append(_fit(" ".join(words), font))
            break
        line = words.pop(0)
        while words and font.getlength(f"{line} {words[0]}") <= TILE_PX:
            line += " " + words.pop(0)
        lines.append(_fit(line, font))
    return lines
