import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsel_platform.demo.artwork import Drawing, render
from vsel_platform.demo.colours import (
    COLOURS,
    absent_colours,
    colour_shares,
    main_colour,
    name_pixels,
    visible_colours,
)


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((0, 0, 0), "black"),
        ((40, 42, 48), "black"),
        ((255, 255, 255), "white"),
        ((128, 128, 128), "grey"),
        ((220, 20, 30), "red"),
        ((250, 140, 20), "orange"),
        ((255, 215, 40), "yellow"),
        ((60, 160, 60), "green"),
        ((30, 90, 200), "blue"),
        ((130, 60, 200), "purple"),
        ((245, 100, 180), "pink"),
        ((255, 170, 180), "pink"),
        ((120, 70, 30), "brown"),
    ],
)
def test_typical_colours_have_their_name(rgb: tuple[int, int, int], name: str) -> None:
    assert COLOURS[name_pixels(np.array([rgb], dtype=np.uint8))[0]] == name


@given(st.integers(0, 255))
def test_a_pixel_without_colour_is_black_grey_or_white(level: int) -> None:
    index = name_pixels(np.full((1, 3), level, dtype=np.uint8))[0]
    assert COLOURS[index] in {"black", "grey", "white"}


@given(st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=20))
def test_a_pixel_is_named_by_itself_alone(pixels: list[tuple[int, int, int]]) -> None:
    together = name_pixels(np.array(pixels, dtype=np.uint8))
    apart = [name_pixels(np.array([pixel], dtype=np.uint8))[0] for pixel in pixels]
    assert together.tolist() == apart


def test_shares_are_counted_over_opaque_pixels(drawing_of: dict[str, Drawing]) -> None:
    drawing = drawing_of["twemoji/1f34e"]
    pixels = np.asarray(render(drawing)).reshape(-1, 4)
    opaque = [tuple(pixel[:3]) for pixel in pixels.tolist() if pixel[3] >= 200]
    names = [COLOURS[name_pixels(np.array([pixel], dtype=np.uint8))[0]] for pixel in opaque]
    assert colour_shares(drawing) == {name: names.count(name) / len(names) for name in COLOURS}


@pytest.mark.parametrize(
    ("drawing", "colour"),
    [("twemoji/1f34e", "red"), ("noto/1f34c", "yellow"), ("openmoji/1f438", "green"), ("noto/1f535", "blue")],
)
def test_well_known_things_have_their_colour(drawing_of: dict[str, Drawing], drawing: str, colour: str) -> None:
    assert main_colour(drawing_of[drawing]) == colour


def test_main_visible_and_absent_colours_agree(drawings: list[Drawing]) -> None:
    for drawing in drawings[::40]:
        shares, main = colour_shares(drawing), main_colour(drawing)
        assert abs(sum(shares.values()) - 1) < 1e-9
        visible, absent = visible_colours(drawing), absent_colours(drawing)
        assert not set(visible) & set(absent)
        assert [shares[name] for name in visible] == sorted((shares[name] for name in visible), reverse=True)
        assert main is None or (main == visible[0] and shares[main] >= 0.4)
        assert main is not None or max(shares.values()) < 0.4
