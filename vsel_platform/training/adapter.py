"""LoRA layers in a LLaVA model, and the adapter as a directory: safetensors, configuration, model card."""

import hashlib
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from vsel_platform.config import LoraSettings
from vsel_platform.errors import ModelError
from vsel_platform.models.quiet import quiet_transformers

WEIGHTS_FILE = "adapter_model.safetensors"
LOSSES_FILE = "losses.json"
PROJECTOR = "multi_modal_projector"
LANGUAGE_MODEL = "model.language_model"


def add_lora(model: Any, settings: LoraSettings, *, base_name: str) -> Any:
    """Put LoRA layers into all linear layers of the language model, and unfreeze the projector if it is trained.

    `model` (a LlavaForConditionalGeneration) is changed in place; returns the peft model around it. The projector is
    trained in float32 whatever the model's dtype: small steps would vanish in bfloat16.
    """
    import peft

    train_projector = settings.projector_learning_rate > 0
    if train_projector:
        model.model.multi_modal_projector.float()
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        # One expression instead of a list: peft keeps lists as sets, whose order differs from run to run.
        target_modules=_linear_layers(model),
        modules_to_save=[PROJECTOR] if train_projector else None,
    )
    with quiet_transformers():
        peft_model = peft.get_peft_model(model, config)
    # peft would name the directory that the weights came from, a place in a cache for a hub model.
    peft_model.peft_config["default"].base_model_name_or_path = base_name
    return peft_model


def _linear_layers(model: Any) -> str:
    import torch

    language_model = model.get_submodule(LANGUAGE_MODEL)
    leaves = {
        name.rpartition(".")[2]
        for name, module in language_model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    if not leaves:
        raise ModelError("LoRA: the language model has no linear layers that are plain torch.nn.Linear")
    return rf"{re.escape(LANGUAGE_MODEL)}\..*\.(?:{'|'.join(sorted(map(re.escape, leaves)))})"


def parameter_groups(model: Any, settings: LoraSettings) -> list[dict[str, Any]]:
    """Optimiser groups of the trainable parameters: LoRA layers, and the projector with its own learning rate."""
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    lora = [p for name, p in trainable if PROJECTOR not in name]
    projector = [p for name, p in trainable if PROJECTOR in name]
    groups = [{"params": lora, "base_lr": settings.learning_rate}]
    if projector:
        groups.append({"params": projector, "base_lr": settings.projector_learning_rate})
    return [{**group, "lr": group["base_lr"]} for group in groups]


def save_adapter(model: Any, directory: Path, card: str, losses: Sequence[float]) -> str:
    """Write the adapter to `directory` (whole or not at all, replacing an older one); sha256 of the weights file.

    `losses` are those of the training's steps [nat/token]; six digits of them are kept.
    """
    temporary = directory.with_name(directory.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    # peft would otherwise ask the hub for the base model's configuration.
    model.save_pretrained(str(temporary), safe_serialization=True, save_embedding_layers=False)
    config_file = temporary / "adapter_config.json"
    config = orjson.loads(config_file.read_bytes())
    config_file.write_bytes(orjson.dumps(config, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2))
    (temporary / "README.md").write_text(card, "utf-8")
    (temporary / LOSSES_FILE).write_bytes(orjson.dumps([float(f"{loss:.6g}") for loss in losses]))
    digest = hashlib.sha256((temporary / WEIGHTS_FILE).read_bytes()).hexdigest()
    shutil.rmtree(directory, ignore_errors=True)
    temporary.rename(directory)
    return digest
