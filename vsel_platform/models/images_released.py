"""Pictures as LLaVA prepares them: padded to a square for fine-tuning, and the grids of its any-resolution mode."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

Size = tuple[int, int]
"""Width and height."""


def padded_to_square(image: "Image.Image", background: tuple[int, int, int]) -> "Image.Image":
    """The picture in the middle of a square of its longer side; an odd pixel is at the right or at the bottom."""
    from PIL import Image

    width, height = image.size
    side = max(width, height)
    square = Image.new(image.mode, (side, side), background)
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square


def background_of(mean: Sequence[float]) -> tuple[int, int, int]:
    """The image processor's mean colour (three numbers in [0, 1]) as bytes."""
    red, green, blue = (int(255 * channel) for channel in mean)
    return red, green, blue


def released_pixels(
    image: "Image.Image", image_processor: Any, aspect_ratio: Literal["pad"] | None
) -> NDArray[np.float32]:
    """Pixels float32 [3, height, width]: `pad`, of the padded square; None, the middle of the picture."""
    picture = image.convert("RGB")
    if aspect_ratio == "pad":
        picture = padded_to_square(picture, background_of(image_processor.image_mean))
    pixels = image_processor(images=picture, return_tensors="np", input_data_format="channels_last")["pixel_values"]
    return np.asarray(pixels[0], dtype=np.float32)


def best_resolution(size: Size, resolutions: Sequence[Size]) -> Size:
    """The resolution that keeps most of a picture's pixels, and of those the one that wastes least; the first of
    equals."""

    def worth(resolution: Size) -> tuple[int, int]:
        scale = min(resolution[0] / size[0], resolution[1] / size[1])
        shown = int(size[0] * scale) * int(size[1] * scale)
        kept = min(shown, size[0] * size[1])
        return kept, kept - resolution[0] * resolution[1]

    return max(resolutions, key=worth)


def tile_grid(size: Size, resolutions: Sequence[Size], tile: int) -> Size:
    """Columns and rows of tiles of `tile` pixels that a picture of a size is cut into."""
    width, height = best_resolution(size, resolutions)
    return width // tile, height // tile
