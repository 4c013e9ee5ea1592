"""What a row costs in a vision-language model: floating-point operations from the checkpoint's configuration alone.

A multiplication and an addition are two operations. Projections and attention count; norms, activations, rotary
positions and softmax, which are far below a percent of them, do not. No weight is loaded.
"""

import math
import warnings
from dataclasses import dataclass
from typing import Any

PATCHED = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
LONG_SIDE = 4
TILED = ("llava_next", "llava_onevision", "idefics3", "smolvlm")


@dataclass(frozen=True, slots=True)
class Decoder:
    """Sizes of a decoder: layers, model width, query and key heads, size of a head, width inside, vocabulary."""

    layers: int
    width: int
    heads: int
    key_heads: int
    head_size: int
    inside: int
    vocabulary: int

    def flops(self, tokens: int, layers: int, *, seen: int | None = None) -> float:
        """Operations of `tokens` through `layers` layers, each token attending to `seen` (default: `tokens`)."""
        queries, keys = self.heads * self.head_size, self.key_heads * self.head_size
        weights = self.width * (2 * queries + 2 * keys) + 3 * self.width * self.inside
        attention = 2 * queries * (tokens if seen is None else seen)
        return 2.0 * layers * tokens * (weights + attention)

    def logit_flops(self, targets: int) -> float:
        """Operations of the output layer at `targets` tokens."""
        return 2.0 * targets * self.width * self.vocabulary


@dataclass(frozen=True, slots=True)
class Tower:
    """A vision tower at one picture: operations (projector included), and the image tokens that it gives."""

    flops: float
    tokens: int


def decoder_of(config: Any) -> Decoder:
    """Sizes of the decoder that a model configuration describes."""
    text = config.text_config
    heads = int(text.num_attention_heads)
    return Decoder(
        layers=int(text.num_hidden_layers),
        width=int(text.hidden_size),
        heads=heads,
        key_heads=int(getattr(text, "num_key_value_heads", None) or heads),
        head_size=int(getattr(text, "head_dim", None) or text.hidden_size // heads),
        inside=int(text.intermediate_size),
        vocabulary=int(text.vocab_size),
    )


def tower_of(config: Any, height: int, width: int) -> Tower:
    """Tower and projector at a picture of height x width pixels.

    Families that cut a picture into tiles are taken to cut as many as cover it, at most the model's largest grid.
    """
    vision, width_out = config.vision_config, int(config.text_config.hidden_size)
    if config.model_type in PATCHED:
        unit = int(vision.patch_size) * int(vision.spatial_merge_size)
        rows, columns = max(1, round(height / unit)), max(1, round(width / unit))
        patches, tokens = rows * columns * int(vision.spatial_merge_size) ** 2, rows * columns
        return Tower(_transformer_flops(vision, patches), tokens)
    size = int(vision.image_size)
    if config.model_type in TILED:
        tiles = 1 + _tiles(config, height, width, size)
        patches = (size // int(vision.patch_size)) ** 2
        shuffle = int(getattr(config, "scale_factor", 1)) ** 2
        return Tower(tiles * _transformer_flops(vision, patches), tiles * patches // shuffle)
    if not hasattr(vision, "patch_size"):
        return Tower(_counted_flops(vision, size), int(config.image_seq_length))
    patches = (size // int(vision.patch_size)) ** 2
    projector = 2.0 * patches * (vision.hidden_size * width_out + width_out**2)
    return Tower(_transformer_flops(vision, patches, extra=1) + projector, patches)


def _tiles(config: Any, height: int, width: int, size: int) -> int:
    points = getattr(config, "image_grid_pinpoints", None)
    if points is None:
        # Idefics3 and SmolVLM scale the longer side to LONG_SIDE tiles, whatever the picture's size.
        return LONG_SIDE * math.ceil(LONG_SIDE * min(height, width) / max(height, width))
    most = max(int(a) * int(b) // size**2 for a, b in points)
    return min(most, max(1, math.ceil(height / size) * math.ceil(width / size)))


def _transformer_flops(vision: Any, patches: int, *, extra: int = 0) -> float:
    """Operations of a vision transformer at so many patches and `extra` tokens beside them."""
    width = int(getattr(vision, "embed_dim", 0) or vision.hidden_size)
    layers = int(getattr(vision, "num_hidden_layers", 0) or vision.depth)
    inside = getattr(vision, "intermediate_size", None) or width * int(getattr(vision, "mlp_ratio", 4))
    matrices = 3 if getattr(vision, "hidden_act", "") == "silu" else 2
    tokens = patches + extra
    per_token = 4 * width**2 + matrices * width * int(inside) + 2 * width * tokens
    return 2.0 * (layers * tokens * per_token + patches * 3 * int(vision.patch_size) ** 2 * width)


def _counted_flops(vision: Any, size: int) -> float:
    """Operations of any other tower, counted on a model without weights."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModel

    with warnings.catch_warnings(), torch.device("meta"):
        # The tower's package loads its weights into a model that has no room for them.
        warnings.simplefilter("ignore", UserWarning)
        tower = AutoModel.from_config(vision).eval()
        pixels = torch.empty(1, 3, size, size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        tower(pixels)
    return float(counter.get_total_flops())
