"""A model with its adapters merged into it, as a checkpoint in the transformers format."""

import shutil
from pathlib import Path

from vsel_platform.config import VlmSettings
from vsel_platform.errors import ModelError
from vsel_platform.models.family_adapter import FamilyAdapter
from vsel_platform.models.llava import LlavaAdapter
from vsel_platform.models.load import load_vlm
from vsel_platform.models.prototypes import PrototypeResidual
from vsel_platform.models.quiet import quiet_transformers
from vsel_platform.models.safety import HUB_FILES, resolve_checkpoint
from vsel_platform.models.tokens import EMBEDDED


def save_merged(settings: VlmSettings, adapter_dir: str, directory: Path) -> None:
    """Write the model of `settings` with an adapter merged into it to `directory`, which exists.

    Weights are safetensors in `settings.dtype`; processor and chat template are those of the base. Raises ModelError
    for a model that the transformers format cannot hold: the embedded ones, and those with prototypes.
    """
    if settings.model.startswith(EMBEDDED):
        raise ModelError(f"vlm.model: {settings.model} has a tower of its own, which no other program can load")
    model = load_vlm(settings, "cpu", adapter_dir=adapter_dir)
    if any(isinstance(module, PrototypeResidual) for module in model.model.modules()):
        raise ModelError(
            "prototypes have no place in a transformers checkpoint; write the adapter without --merged and name its "
            "directory as vlm.adapter of the project that goes on from it"
        )
    _copy_processor(resolve_checkpoint(settings.place, settings.revision), directory)
    _save(model, directory)


def _save(model: LlavaAdapter | FamilyAdapter, directory: Path) -> None:
    with quiet_transformers():
        model.model.save_pretrained(directory)
        model.tokenizer.save_pretrained(directory)


def _copy_processor(base: Path, directory: Path) -> None:
    """Configuration, processor and tokenizer files of the base; nothing that belongs to its weights."""
    for pattern in HUB_FILES:
        for file in sorted(base.glob(pattern)) if "safetensors" not in pattern else ():
            if not file.name.endswith(".index.json"):
                shutil.copyfile(file, directory / file.name)
