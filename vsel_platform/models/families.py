"""Families of vision-language models in transformers: what their pictures and prompts are made of."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from vsel_platform.errors import ModelError
from vsel_platform.models.vlm import ShownImage

MAX_TILES = 6
"""Idefics3 and SmolVLM have tokens for six rows and six columns of tiles."""


@dataclass(frozen=True, slots=True)
class Family:
    """One family.

    arrays: what its vision tower takes of the image processor's output. image_token: the token of an image, where the
    tokenizer names none. prompt: text of an image in the prompt, given that token and what is shown. layout: names in
    the image processor's output. decoder: attribute of the inner model. tower, projectors: paths in the model.
    counts_positions: its tokens have positions in
    time, height and width. square_in_company: a row of several images shows each padded to a square, and no tiles.
    """

    arrays: tuple[str, ...]
    image_token: str
    prompt: Callable[[str, ShownImage], str]
    layout: tuple[str, ...] = ()
    decoder: str = "language_model"
    tower: str = "model.vision_tower"
    projectors: tuple[str, ...] = ("model.multi_modal_projector",)
    counts_positions: bool = False
    square_in_company: bool = False

    def layout_of(self, inputs: Any) -> tuple[int, ...]:
        """Layout of the only image of the image processor's output."""
        values = (inputs[name] for name in self.layout)
        return tuple(int(number) for value in values for number in _flat(value))


def _flat(value: Any) -> list[Any]:
    import numpy as np

    return list(np.asarray(value).reshape(-1).tolist())


def _repeated(token: str, image: ShownImage) -> str:
    return token * image.n_tokens


def _tiled(token: str, image: ShownImage) -> str:
    """Idefics3: a grid of tiles, each behind its row and column, then the whole picture."""
    rows, columns = image.layout
    around, whole = "<fake_token_around_image>", "<global-img>"
    own = token * (image.n_tokens // (rows * columns + 1))
    if not rows * columns:
        return around + whole + own + around
    if max(rows, columns) > MAX_TILES:
        raise ModelError(f"an image has {rows} x {columns} tiles; the model has tokens for {MAX_TILES} x {MAX_TILES}")
    lines = (
        "".join(f"{around}<row_{row}_col_{column}>{own}" for column in range(1, columns + 1)) + "\n"
        for row in range(1, rows + 1)
    )
    return "".join(lines) + "\n" + around + whole + own + around


_NEXT = Family(("pixel_values", "image_sizes"), "<image>", _repeated)
_ONEVISION = Family(("pixel_values", "image_sizes"), "<image>", _repeated, square_in_company=True)
_QWEN = Family(
    ("pixel_values", "image_grid_thw"),
    "<|image_pad|>",
    _repeated,
    layout=("image_grid_thw",),
    tower="model.visual",
    projectors=("model.visual.merger",),
    counts_positions=True,
)
_QWEN3 = replace(_QWEN, projectors=("model.visual.merger", "model.visual.deepstack_merger_list"))
_IDEFICS = Family(
    ("pixel_values", "pixel_attention_mask"),
    "<image>",
    _tiled,
    layout=("rows", "cols"),
    decoder="text_model",
    tower="model.vision_model",
    projectors=("model.connector",),
)

FAMILIES: dict[str, Family] = {
    "llava_next": _NEXT,
    "llava_onevision": _ONEVISION,
    "qwen2_vl": _QWEN,
    "qwen2_5_vl": _QWEN,
    "qwen3_vl": _QWEN3,
    "idefics3": _IDEFICS,
    "smolvlm": _IDEFICS,
}
"""Families by `model_type` of the checkpoint's configuration, besides `llava`."""
