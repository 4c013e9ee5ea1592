"""Image encoders: one protocol, one registry."""

import importlib
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vsel_platform.config import EncoderSettings
from vsel_platform.errors import ConfigError
from vsel_platform.models.devices import resolve_device

if TYPE_CHECKING:
    from PIL import Image

ENTRY_POINT_GROUP = "vsel_platform.image_encoders"

# Targets are strings, so that naming an encoder imports none.
_LOADERS = {
    "huggingface": "vsel_platform.models.huggingface_encoder:load",
    "efficientnet_lite0": "vsel_platform.demo.encoder:load_efficientnet_lite0",
}


@runtime_checkable
class ImageEncoder(Protocol):
    """Turns pictures into vectors. Decoding, colour and resize policy are part of the fingerprint."""

    @property
    def name(self) -> str:
        """Name to show: the registered name, and the model where there are several."""

    @property
    def dimension(self) -> int:
        """Length of a vector."""

    @property
    def fingerprint(self) -> str:
        """Hash of weights, preprocessing, feature and dtype."""

    @property
    def device(self) -> str:
        """Device that `encode` runs on."""

    def preprocess(self, image: "Image.Image") -> NDArray[np.float32]:
        """Pixels of one picture, float32 [3, height, width]; the same shape for every picture."""

    def encode(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Vectors float32 [n, dimension] of pixels float32 [n, 3, height, width]."""


def register_image_encoder(name: str, target: str) -> None:
    """Register the loader `module:function` of an encoder; it is imported on first use.

    The function takes `(EncoderSettings, device)` and returns an ImageEncoder. An installed package registers
    by an entry point of the group `vsel_platform.image_encoders` instead. Raises ConfigError if the name is taken
    by another target.
    """
    if _LOADERS.get(name, target) != target:
        raise ConfigError(f"image encoder {name!r} is registered as {_LOADERS[name]}; choose another name")
    _LOADERS[name] = target


def image_encoder_names() -> list[str]:
    """Names of all registered encoders, those of installed packages included, sorted."""
    return sorted({*_LOADERS, *(point.name for point in entry_points(group=ENTRY_POINT_GROUP))})


def load_image_encoder(settings: EncoderSettings, device: str) -> ImageEncoder:
    """The encoder that the settings name, on `device` (`auto` chooses).

    Raises ConfigError for an unknown name or device, ModelError or UnsafeCheckpointError from loading.
    """
    target = _LOADERS.get(settings.name)
    if target is None:
        points = [p for p in entry_points(group=ENTRY_POINT_GROUP) if p.name == settings.name]
        if not points:
            known = ", ".join(image_encoder_names())
            raise ConfigError(f"image_encoder.name: unknown encoder {settings.name!r}; known: {known}")
        target = points[0].value
    module, _, function = target.partition(":")
    encoder: ImageEncoder = getattr(importlib.import_module(module), function)(settings, resolve_device(device))
    return encoder
