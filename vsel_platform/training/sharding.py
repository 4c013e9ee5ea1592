"""Models that several devices share out."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import orjson
import transformers

from vsel_platform.config_training import LoraSettings, RuntimeSettings
from vsel_platform.errors import ConfigError
from vsel_platform.models.family_adapter import FamilyAdapter
from vsel_platform.models.llava import LlavaAdapter

ZERO_3 = (
    "training.runtime: under ZeRO-3 the vision tower cannot be trained; set lora.vision.rank to 0, or use FSDP or "
    "ZeRO-2"
)


def require_possible(settings: LoraSettings, runtime: RuntimeSettings) -> None:
    """Raises ConfigError for what `kept_whole` would refuse of any model, before one is loaded."""
    configuration = configuration_of(runtime, "deepspeed")
    if settings.vision.rank and configuration.get("zero_optimization", {}).get("stage") == 3:
        raise ConfigError(ZERO_3)


def configuration_of(runtime: RuntimeSettings, kind: Literal["deepspeed", "fsdp"]) -> dict[str, Any]:
    """What stands in a configuration file of the runtime, {} if none is named. Raises ConfigError if it is not there or
    no JSON object."""
    name = getattr(runtime, kind)
    if name is None:
        return {}
    file = Path(name)
    if not file.is_file():
        raise ConfigError(f"training.runtime.{kind}: no file {file}")
    try:
        found = orjson.loads(file.read_bytes())
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"training.runtime.{kind}: {file} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"training.runtime.{kind}: {file} holds no JSON object")
    return found


@contextmanager
def kept_whole(model: LlavaAdapter | FamilyAdapter, *, zero_stage: int = 0) -> Iterator[None]:
    """Inside, the parts that give frozen features are none of the model's modules: whoever shares a model out passes
    them by, and every process has them whole.

    They have to be, because every process passes images of its own through them, in a number of its own, where what is
    shared out must be passed by all together. Raises ConfigError if such a part is trained, as other families' towers
    and projectors would be, and LLaVA's tower under ZeRO-3, which shares out every module.
    """
    inner = model.model.model
    if model.tower_gradients and isinstance(model, FamilyAdapter):
        raise ConfigError(
            "training.runtime: deepspeed and fsdp train only the language model of this family; set lora.vision.rank "
            "and lora.projector_learning_rate to 0"
        )
    if model.tower_gradients and zero_stage == 3:
        raise ConfigError(ZERO_3)
    frozen = _names(model)
    modules: dict[str, Any] = {name: inner._modules.pop(name) for name in frozen if name in inner._modules}
    tensors: dict[str, Any] = {name: inner._parameters.pop(name) for name in frozen if name in inner._parameters}
    # A plain attribute of the same name is found as before.
    inner.__dict__.update(modules | tensors)
    try:
        yield
    finally:
        for name in (*modules, *tensors):
            del inner.__dict__[name]
        inner._modules.update(modules)
        inner._parameters.update(tensors)


def zero_stage(trainer: transformers.Trainer) -> int:
    """DeepSpeed's ZeRO stage; 0 without DeepSpeed."""
    return int(trainer.accelerator.state.deepspeed_plugin.zero_stage) if trainer.is_deepspeed_enabled else 0


def _names(model: LlavaAdapter | FamilyAdapter) -> list[str]:
    """Names in the inner model of what images pass outside of the loss."""
    if isinstance(model, LlavaAdapter):
        return [] if model.tower_gradients else [_name(model.parts.tower)]
    inner = model.model.model
    return [name for name in (*inner._modules, *inner._parameters) if name != _name(model.parts.language)]


def _name(path: str) -> str:
    return path.split(".")[1]
