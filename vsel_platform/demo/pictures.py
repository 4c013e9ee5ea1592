"""Pictures of the demo: drawings on white, and scenes of several drawings, each with a name that says what it is."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vsel_platform.demo.artwork import DRAWING_PX, Drawing, render

if TYPE_CHECKING:
    from PIL import Image

Variant = Literal["plain", "inset", "turned"]

PICTURE_PX = 64
_GRID_CELL_PX = 21
_INSET_PX = 46
_LARGEST_TURN_DEGREES = 20


@dataclass(frozen=True, slots=True)
class Placed:
    """A drawing in a picture: left upper corner and edge length in pixels, turned counter-clockwise by degrees."""

    drawing: Drawing
    left: int
    top: int
    size: int
    degrees: int = 0


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture: its path below the image folder (the vendor comes first) and what is in it."""

    path: str
    parts: tuple[Placed, ...]

    @property
    def drawings(self) -> frozenset[str]:
        """Ids of the drawings in the picture."""
        return frozenset(part.drawing.id for part in self.parts)

    def draw(self) -> "Image.Image":
        """The picture: RGB, 64 x 64 pixels, on white."""
        from PIL import Image

        canvas = Image.new("RGB", (PICTURE_PX, PICTURE_PX), "white")
        for part in self.parts:
            image = render(part.drawing)
            if part.degrees:
                image = image.rotate(part.degrees, Image.Resampling.BICUBIC)
            if part.size != DRAWING_PX:
                image = image.resize((part.size, part.size), Image.Resampling.LANCZOS)
            canvas.paste(image, (part.left, part.top), image)
        return canvas

    def png(self) -> bytes:
        """The picture as PNG bytes."""
        buffer = BytesIO()
        self.draw().save(buffer, "PNG", compress_level=6)
        return buffer.getvalue()

    def write(self, folder: Path) -> None:
        """Write the picture below `folder`."""
        file = folder / self.path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(self.png())


def single(drawing: Drawing, variant: Variant = "plain") -> Picture:
    """One drawing: `plain` fills the picture, `inset` is smaller and off the centre, `turned` is rotated.

    Place and angle come from a hash of the drawing's id, so they are the same in every row.
    """
    path = f"{drawing.id}.png" if variant == "plain" else f"{drawing.id}-{variant}.png"
    if variant == "plain":
        return Picture(path, (Placed(drawing, 0, 0, PICTURE_PX),))
    chance = hashlib.sha256(f"{variant} {drawing.id}".encode()).digest()
    if variant == "inset":
        room = PICTURE_PX - _INSET_PX + 1
        return Picture(path, (Placed(drawing, chance[0] % room, chance[1] % room, _INSET_PX),))
    steps = _LARGEST_TURN_DEGREES - 4
    degrees = (5 + chance[0] % steps) * (1 if chance[1] % 2 else -1)
    return Picture(path, (Placed(drawing, 4, 4, PICTURE_PX - 8, degrees),))


def grid(drawing: Drawing, cells: Sequence[int]) -> Picture:
    """Copies of one drawing in cells of a 3 x 3 grid; cell 0 is the left upper one, rows first."""
    parts = tuple(Placed(drawing, cell % 3 * _GRID_CELL_PX, cell // 3 * _GRID_CELL_PX, _GRID_CELL_PX) for cell in cells)
    shown = "".join(map(str, cells))
    return Picture(f"{drawing.vendor}/count/{drawing.concept.key}-{shown}.png", parts)


def pair(first: Drawing, second: Drawing, direction: Literal["row", "column"]) -> Picture:
    """Two drawings: the first left of the second (`row`), or above it (`column`)."""
    half = PICTURE_PX // 2
    corners = ((0, half // 2), (half, half // 2)) if direction == "row" else ((half // 2, 0), (half // 2, half))
    parts = tuple(
        Placed(drawing, left, top, half) for drawing, (left, top) in zip((first, second), corners, strict=True)
    )
    name = f"{first.concept.key}_{second.concept.key}-{direction}.png"
    return Picture(f"{first.vendor}/position/{name}", parts)


def line(drawings: Sequence[Drawing]) -> Picture:
    """Two or three drawings side by side, such as keys that make a number; vendors may differ."""
    size = PICTURE_PX // len(drawings)
    parts = tuple(Placed(d, i * size, (PICTURE_PX - size) // 2, size) for i, d in enumerate(drawings))
    name = "_".join(f"{drawing.vendor[0]}{drawing.concept.key}" for drawing in drawings)
    return Picture(f"mixed/reading/{name}.png", parts)
