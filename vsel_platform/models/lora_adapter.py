"""A LoRA adapter's directory merged into the model that it was trained on."""

from pathlib import Path
from typing import Any

import orjson

from vsel_platform.config_training import PrototypeSettings
from vsel_platform.errors import ModelError
from vsel_platform.identity import fingerprint
from vsel_platform.models.quiet import quiet_transformers
from vsel_platform.models.safety import weight_files, weights_hash

ADAPTER_WEIGHTS = "adapter_model.safetensors"
BASE_ADAPTER = "base_adapter"
"""Folder of the adapter that an adapter was trained on top of."""
EXTRAS_FILE = "vsel.json"
"""What the adapter's model has that its base has not: the settings of a prototype extractor."""


def merge_adapter(model: Any, projector: str, directory: Path) -> tuple[Any, str]:
    """The model with the adapter's weights added to its own, and the hash of the adapter's weights.

    `projector`: path of the model's projector, in front of which a prototype extractor stands. Raises ModelError if
    the directory is missing or does not fit the model, UnsafeCheckpointError for weights that are not safetensors.
    """
    import peft
    from safetensors.torch import load_file

    if not directory.is_dir():
        raise ModelError(f"LoRA adapter: no directory {directory}")
    weight_files(directory)
    below = None
    if (directory / BASE_ADAPTER).is_dir():
        model, below = merge_adapter(model, projector, directory / BASE_ADAPTER)
    try:
        add_extras(model, projector, adapter_extras(directory))
        config = peft.PeftConfig.from_pretrained(str(directory))
        config.base_model_name_or_path = None  # peft warns when the base lies elsewhere than at training time
        with quiet_transformers():
            wrapped = peft.get_peft_model(model, config)
        loaded = peft.set_peft_model_state_dict(wrapped, load_file(directory / ADAPTER_WEIGHTS))
        own = {name for name in wrapped.state_dict() if "lora_" in name or "modules_to_save" in name}
        wrong = sorted({*loaded.unexpected_keys, *own.intersection(loaded.missing_keys)})
        if wrong:
            raise ModelError(f"LoRA adapter {directory} does not fit the model: {', '.join(wrong[:5])}")
        own_hash = weights_hash(directory) if below is None else fingerprint(below=below, own=weights_hash(directory))
        return wrapped.merge_and_unload(safe_merge=True), own_hash
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ModelError(f"LoRA adapter {directory} does not fit the model: {error}") from error


def adapter_extras(directory: Path) -> PrototypeSettings:
    """Settings of the adapter's prototype extractor."""
    file = directory / EXTRAS_FILE
    return PrototypeSettings.model_validate_json(file.read_bytes()) if file.is_file() else PrototypeSettings()


def write_extras(directory: Path, settings: PrototypeSettings) -> None:
    """Say in an adapter's directory which prototype extractor it needs; nothing is written without one."""
    if settings.prototypes:
        data = orjson.dumps(settings.model_dump(), option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2)
        (directory / EXTRAS_FILE).write_bytes(data)


def add_extras(model: Any, projector: str, settings: PrototypeSettings) -> None:
    """Put a prototype extractor in front of the model's projector, if the settings ask for one."""
    if settings.prototypes:
        from vsel_platform.models.prototypes import PrototypeResidual, with_prototypes

        parent, _, name = projector.rpartition(".")
        own = model.get_submodule(projector)
        if not isinstance(own, PrototypeResidual):  # one that is there is trained on
            setattr(model.get_submodule(parent), name, with_prototypes(own, settings))
