"""Squares and grids."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_llava import tiny_image_processor

from vsel_platform.models.images_released import (
    background_of,
    best_resolution,
    padded_to_square,
    released_pixels,
    tile_grid,
)

POINTS = [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)]


@given(st.integers(1, 40), st.integers(1, 40))
def test_the_picture_stands_whole_in_the_middle_of_the_square(width, height):
    pixels = np.full((height, width, 3), 200, np.uint8)
    square = np.asarray(padded_to_square(Image.fromarray(pixels), (1, 2, 3)))
    side = max(width, height)
    assert square.shape == (side, side, 3)
    left, top = (side - width) // 2, (side - height) // 2
    assert (square[top : top + height, left : left + width] == 200).all()
    assert (square == 200).all(-1).sum() == width * height
    assert {tuple(pixel) for pixel in square.reshape(-1, 3).tolist()} <= {(200, 200, 200), (1, 2, 3)}


def test_padding_keeps_what_the_crop_cuts_off():
    pixels = np.zeros((28, 84, 3), np.uint8)
    pixels[:, :20] = 255
    image, processor = Image.fromarray(pixels), tiny_image_processor()
    padded, cropped = (released_pixels(image, processor, aspect) for aspect in ("pad", None))
    assert padded.shape == cropped.shape == (3, 28, 28)
    assert padded.dtype == np.float32
    assert padded.max() > 1.5 > cropped.max()


def test_the_background_is_the_mean_colour():
    assert background_of([0.48145466, 0.4578275, 0.40821073]) == (122, 116, 104)


@pytest.mark.parametrize(
    ("size", "best", "grid"),
    [((640, 480), (672, 672), (2, 2)), ((100, 900), (336, 1008), (1, 3)), ((336, 336), (336, 672), (1, 2))],
)
def test_the_resolution_that_keeps_most_and_wastes_least(size, best, grid):
    assert best_resolution(size, POINTS) == best
    assert tile_grid(size, POINTS, 336) == grid
