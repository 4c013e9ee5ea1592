import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from vsel_platform.reports.style import (
    MAX_PNG_BYTES,
    add_legend,
    counted,
    drawable,
    label,
    new_figure,
    number,
    pack_png,
    style_axes,
    to_png,
)


@given(st.text(), st.integers(1, 40))
def test_drawable_is_one_short_line_that_the_font_can_draw(text, limit):
    shown = drawable(text, limit)
    assert len(shown) <= limit
    assert "\n" not in shown
    assert drawable(shown, limit) == shown


def test_characters_that_the_font_lacks_become_boxes():
    assert drawable("漢字 of\ttask", 20) == "□□ of task"


def test_long_text_ends_with_an_ellipsis():
    assert drawable("a" * 30, 10) == "a" * 9 + "…"


def test_dollars_are_not_formulas():
    assert label("$x_1$ and $2") == r"\$x_1\$ and \$2"
    figure = Figure()
    text = figure.text(0, 0, label(r"$\broken{$"))
    to_png(figure)
    assert text.get_text() == r"\$\broken{\$"


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (1234567, "1,234,567"), (3.0, "3"), (0.12345, "0.123"), (12345.6, "12,346")]
)
def test_numbers_are_readable(value, text):
    assert number(value) == text


def test_counted_uses_the_singular_for_one():
    assert [counted(n, "row") for n in (0, 1, 2000)] == ["0 rows", "1 row", "2,000 rows"]


def plain_figure() -> Figure:
    figure = new_figure(300, "Title", "subtitle")
    axes = figure.subplots()
    axes.plot([1, 2], [3, 4], label="line")
    style_axes(axes, xlabel="x [m]", ylabel="y [s]")
    add_legend(axes)
    return figure


def test_equal_figures_give_equal_bytes():
    assert to_png(plain_figure()) == to_png(plain_figure())


def test_a_figure_is_720_pixels_wide_on_white():
    image = Image.open(io.BytesIO(to_png(plain_figure())))
    assert image.size == (720, 300)
    assert image.mode == "P"
    assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_drawing_leaves_pyplot_alone():
    import matplotlib._pylab_helpers as helpers

    to_png(plain_figure())
    assert helpers.Gcf.get_num_fig_managers() == 0


@pytest.mark.parametrize("dither", [False, True])
def test_a_noisy_image_is_packed_below_the_limit(dither):
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    noise[0, 0] = 255
    png = pack_png(Image.fromarray(noise), dither=dither)
    assert len(png) <= MAX_PNG_BYTES
    assert Image.open(io.BytesIO(png)).convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_an_image_that_cannot_fit_is_an_error_with_its_size():
    noise = np.random.default_rng(0).integers(0, 255, (100, 100, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="100 x 100"):
        pack_png(Image.fromarray(noise), limit_bytes=500)
