"""Tiny random vision models as checkpoint directories."""

from pathlib import Path
from typing import Any


def _save(model: Any, directory: Path, side: int) -> Path:
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

    model.save_pretrained(directory)
    BitImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side}).save_pretrained(
        directory
    )
    return directory


def save_tiny_dinov2(directory: Path, *, seed: int = 0, side: int = 56) -> Path:
    """DINOv2 of width 32, two layers, patches of 14 pixels."""
    import torch
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=side, patch_size=14
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return _save(Dinov2Model(config), directory, side)


def save_tiny_clip(directory: Path, *, side: int = 28) -> Path:
    """A joint CLIP model: vision tower of width 16, text tower of width 24."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    small = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = CLIPConfig(
        vision_config={"hidden_size": 16, "image_size": side, "patch_size": 14, **small},
        text_config={"hidden_size": 24, "vocab_size": 50, **small},
        projection_dim=8,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return _save(CLIPModel(config), directory, side)
