from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vsel_platform.demo.artwork import Drawing, render
from vsel_platform.demo.pictures import Picture, Variant, grid, line, pair, single

PIZZA, APPLE = "noto/1f355", "noto/1f34e"


def ink(picture: Picture) -> np.ndarray:
    """True where a pixel is not white."""
    return np.asarray(picture.draw()).min(axis=2) < 250


@pytest.mark.parametrize("variant", ["plain", "inset", "turned"])
def test_a_picture_is_rgb_on_white_and_the_same_bytes_each_time(
    drawing_of: dict[str, Drawing], variant: Variant
) -> None:
    picture = single(drawing_of[PIZZA], variant)
    image = Image.open(BytesIO(picture.png()))
    assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", (64, 64), (255, 255, 255))
    assert picture.png() == single(drawing_of[PIZZA], variant).png()


def test_the_variants_of_a_drawing_differ(drawing_of: dict[str, Drawing]) -> None:
    variants: tuple[Variant, ...] = ("plain", "inset", "turned")
    pictures = [single(drawing_of[PIZZA], variant) for variant in variants]
    assert len({picture.png() for picture in pictures}) == 3
    assert len({picture.path for picture in pictures}) == 3
    assert all(picture.drawings == {PIZZA} for picture in pictures)


def test_plain_is_the_drawing_on_white(drawing_of: dict[str, Drawing]) -> None:
    drawing = render(drawing_of[PIZZA])
    white = Image.new("RGBA", drawing.size, "white")
    expected = np.asarray(Image.alpha_composite(white, drawing).convert("RGB")).astype(int)
    assert np.abs(np.asarray(single(drawing_of[PIZZA]).draw()) - expected).max() <= 1


def test_an_inset_is_smaller_and_inside(drawings: list[Drawing]) -> None:
    for drawing in drawings[::300]:
        part = single(drawing, "inset").parts[0]
        assert part.size < 64
        assert 0 <= part.left <= 64 - part.size
        assert 0 <= part.top <= 64 - part.size


def test_a_turn_is_visible_but_small(drawings: list[Drawing]) -> None:
    degrees = {single(drawing, "turned").parts[0].degrees for drawing in drawings[::20]}
    assert min(degrees) < 0 < max(degrees)
    assert all(5 <= abs(value) <= 20 for value in degrees)


def test_a_grid_has_a_drawing_in_its_cells_and_nowhere_else(drawing_of: dict[str, Drawing]) -> None:
    drawn = ink(grid(drawing_of[APPLE], [0, 4, 5]))[:63, :63]
    cells = drawn.reshape(3, 21, 3, 21).any(axis=(1, 3)).reshape(-1)
    assert np.flatnonzero(cells).tolist() == [0, 4, 5]


def test_a_row_is_left_and_right_a_column_above_and_below(drawing_of: dict[str, Drawing]) -> None:
    pizza, apple = drawing_of[PIZZA], drawing_of[APPLE]
    row, column = pair(pizza, apple, "row").draw(), pair(pizza, apple, "column").draw()
    small = single(pizza).draw().resize((32, 32), Image.Resampling.LANCZOS)
    left = np.asarray(row.crop((0, 16, 32, 48))).astype(int)
    top = np.asarray(column.crop((16, 0, 48, 32))).astype(int)
    assert np.abs(left - np.asarray(small)).mean() < 4
    assert np.array_equal(left, top)
    assert pair(apple, pizza, "row").path != pair(pizza, apple, "row").path


def test_a_line_shows_its_drawings_in_order(drawing_of: dict[str, Drawing]) -> None:
    pizza, apple = drawing_of[PIZZA], drawing_of[APPLE]
    drawn = ink(line([pizza, apple, pizza]))
    assert np.array_equal(drawn[:, :21], drawn[:, 42:63])
    assert not np.array_equal(drawn[:, :21], drawn[:, 21:42])


def test_paths_begin_with_the_vendor_and_files_lie_there(drawing_of: dict[str, Drawing], tmp_path: Path) -> None:
    for picture in (single(drawing_of[PIZZA], "inset"), grid(drawing_of[PIZZA], [1])):
        picture.write(tmp_path)
        assert picture.path.startswith("noto/")
        assert (tmp_path / picture.path).read_bytes() == picture.png()
