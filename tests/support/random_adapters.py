"""LoRA adapters with random weights, as directories."""

from pathlib import Path
from typing import Any

import torch

from vsel_platform.config_training import LoraSettings
from vsel_platform.training.adapter import add_lora, save_adapter
from vsel_platform.training.history import History


def save_random_adapter(adapter: Any, directory: Path, settings: LoraSettings, seed: int = 0) -> Any:
    """Write an adapter of a loaded model to `directory`; the model with the adapter's layers in it."""
    token = adapter.use_dedicated_token() if settings.self_questioning.dedicated_token else None
    wrapped = add_lora(adapter.model, adapter.parts, settings, base_name="x", token=token)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    save_adapter(wrapped, directory, "", History(), settings)
    return wrapped
