import io

import pytest
from PIL import Image

from vsel_platform.reports.style import MAX_PNG_BYTES, WIDTH_PX
from vsel_platform.reports.thumbnails import PER_ROW, TILE_PX, Tile, contact_sheet, thumbnail


@pytest.mark.parametrize("size", [(1, 1), (40, 10), (400, 30), (64, 64), (3, 900)])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_any_picture_becomes_a_square_tile(size, mode):
    tile = thumbnail(Image.new(mode, size))
    assert tile.size == (TILE_PX, TILE_PX)
    assert tile.mode == "RGB"


def test_small_pictures_are_enlarged_in_whole_steps():
    picture = Image.new("RGB", (2, 2), "red")
    picture.putpixel((0, 0), (0, 0, 255))
    colours = {colour for _, colour in thumbnail(picture).getcolors() or []}
    assert colours == {(255, 0, 0), (0, 0, 255)}


def test_transparent_pixels_show_the_paper():
    assert thumbnail(Image.new("RGBA", (64, 64), (9, 9, 9, 0))).getpixel((50, 50)) == (255, 255, 255)


def sheet(*sections) -> Image.Image:
    png = contact_sheet(sections, title="Title")
    assert png is not None
    assert len(png) < MAX_PNG_BYTES
    return Image.open(io.BytesIO(png)).convert("RGB")


def red(image: Image.Image) -> int:
    return sum(count for count, (r, g, b) in image.getcolors(1 << 20) or [] if r > 240 and g < 20 and b < 20)


def test_each_tile_is_drawn_once():
    tile = Tile(Image.new("RGB", (TILE_PX, TILE_PX), "red"), "task", "some text", "0.5")
    image = sheet(("First", [tile] * 2), ("Last", [tile]))
    assert image.width == WIDTH_PX
    assert red(image) == pytest.approx(3 * TILE_PX**2, rel=0.01)


def test_a_section_has_at_most_six_tiles():
    tile = Tile(Image.new("RGB", (TILE_PX, TILE_PX), "red"), "task", "text")
    assert red(sheet(("First", [tile] * 9))) == pytest.approx(PER_ROW * TILE_PX**2, rel=0.01)


def test_empty_sections_take_no_room_and_none_is_no_sheet():
    tile = Tile(None, "task", "text")
    assert sheet(("First", [tile]), ("Last", [])).height == sheet(("First", [tile])).height
    assert contact_sheet([("First", []), ("Last", [])], title="Title") is None


def test_any_caption_fits():
    nasty = Tile(None, "$" * 500, "word" * 400 + " 漢字 \n" * 50, "m" * 300, missing="x" * 90)
    sheet(("h" * 900, [nasty, Tile(None, "", "", "")]))
