"""A LoRA adapter's directory merged into the model that it was trained on."""

import shutil
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict

from vsel_platform.config_training import PrototypeSettings
from vsel_platform.errors import ModelError
from vsel_platform.identity import fingerprint
from vsel_platform.models.dedicated_token import VIRTUAL_USER, add_dedicated_token
from vsel_platform.models.quiet import quiet_transformers
from vsel_platform.models.safety import weight_files, weights_hash

ADAPTER_WEIGHTS = "adapter_model.safetensors"
BASE_ADAPTER = "base_adapter"
"""Folder of the adapter that an adapter was trained on top of."""
EXTRAS_FILE = "vsel.json"
"""`AdapterExtras` of an adapter, if there are any."""


class AdapterExtras(BaseModel):
    """What an adapter's model has that its base has not. base_adapter: another adapter, which is merged first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prototypes: PrototypeSettings = PrototypeSettings()
    dedicated_token: bool = False
    base_adapter: bool = False


def merge_adapter(model: Any, tokenizer: Any, projector: str, directory: Path) -> tuple[Any, str]:
    """The model with the adapter's weights added to its own, and the hash of the adapter's weights.

    `projector`: path of the model's projector, in front of which a prototype extractor stands. The tokenizer gets the
    virtual user's token, if the adapter was trained with it. Raises ModelError if
    the directory is missing or does not fit the model, UnsafeCheckpointError for weights that are not safetensors.
    """
    import peft
    from safetensors.torch import load_file

    if not directory.is_dir():
        raise ModelError(f"LoRA adapter: no directory {directory}")
    weight_files(directory)
    below = None
    if (directory / BASE_ADAPTER).is_dir():
        model, below = merge_adapter(model, tokenizer, projector, directory / BASE_ADAPTER)
    try:
        extras = adapter_extras(directory)
        if extras.base_adapter and below is None:
            raise ModelError(f"LoRA adapter {directory}: {BASE_ADAPTER}/ is missing, on top of which it was trained")
        add_prototypes(model, projector, extras.prototypes)
        if extras.dedicated_token and VIRTUAL_USER not in tokenizer.get_vocab():
            add_dedicated_token(model, tokenizer)
        config = peft.PeftConfig.from_pretrained(str(directory))
        config.base_model_name_or_path = None  # peft warns when the base lies elsewhere than at training time
        with quiet_transformers():
            wrapped = peft.get_peft_model(model, config)
        loaded = peft.set_peft_model_state_dict(wrapped, load_file(directory / ADAPTER_WEIGHTS))
        kinds = ("lora_", "modules_to_save", "trainable_tokens")
        own = {name for name in wrapped.state_dict() if any(kind in name for kind in kinds)}
        wrong = sorted({*loaded.unexpected_keys, *own.intersection(loaded.missing_keys)})
        if wrong:
            raise ModelError(f"LoRA adapter {directory} does not fit the model: {', '.join(wrong[:5])}")
        own_hash = weights_hash(directory) if below is None else fingerprint(below=below, own=weights_hash(directory))
        return wrapped.merge_and_unload(safe_merge=True), own_hash
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ModelError(f"LoRA adapter {directory} does not fit the model: {error}") from error


def adapter_extras(directory: Path) -> AdapterExtras:
    """What the adapter in a directory needs."""
    file = directory / EXTRAS_FILE
    return AdapterExtras.model_validate_json(file.read_bytes()) if file.is_file() else AdapterExtras()


def keep_base(directory: Path, below: Path) -> None:
    """Put the adapter that another one was trained on top of into that one's directory: it is whole then."""
    shutil.copytree(below, directory / BASE_ADAPTER)
    write_extras(directory, adapter_extras(directory).model_copy(update={"base_adapter": True}))


def write_extras(directory: Path, extras: AdapterExtras) -> None:
    """Say in an adapter's directory what it needs; nothing is written if that is nothing."""
    if extras != AdapterExtras():
        data = orjson.dumps(extras.model_dump(), option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2)
        (directory / EXTRAS_FILE).write_bytes(data)


def add_prototypes(model: Any, projector: str, settings: PrototypeSettings) -> None:
    """Put a prototype extractor in front of the model's projector, if the settings ask for one."""
    if settings.prototypes:
        from vsel_platform.models.prototypes import PrototypeResidual, prototype_options, with_prototypes

        parent, _, name = projector.rpartition(".")
        own = model.get_submodule(projector)
        if not isinstance(own, PrototypeResidual):
            setattr(model.get_submodule(parent), name, with_prototypes(own, settings))
        elif own.extractor.options != prototype_options(settings):  # else they are trained on
            found = own.extractor.options
            raise ModelError(
                f"lora.prototypes: the model has prototypes already ({found.num_prototypes}, iterations "
                f"{found.iterations}, key_norm {found.key_norm}, read_out {found.read_out}); say the same, or leave it "
                "out to train them on"
            )
