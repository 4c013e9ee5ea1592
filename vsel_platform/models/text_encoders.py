"""Text encoders: one protocol, one registry."""

import importlib
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vsel_platform.config import TextEncoderSettings
from vsel_platform.errors import ConfigError
from vsel_platform.models.devices import resolve_device

ENTRY_POINT_GROUP = "vsel_platform.text_encoders"

# Targets are strings, so that naming an encoder imports none.
_LOADERS = {
    "huggingface": "vsel_platform.models.huggingface_text_encoder:load",
    "minilm": "vsel_platform.demo.text_encoder:load_minilm",
}


@runtime_checkable
class TextEncoder(Protocol):
    """Turns texts into vectors. Tokenizer, truncation and pooling are part of the fingerprint."""

    @property
    def name(self) -> str:
        """Name to show: the registered name, and the model where there are several."""

    @property
    def dimension(self) -> int:
        """Length of a vector."""

    @property
    def fingerprint(self) -> str:
        """Hash of weights, tokenizer, feature and dtype."""

    @property
    def device(self) -> str:
        """Device that `encode` runs on."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors float32 [n, dimension] of texts; NaN for a text without tokens."""


def register_text_encoder(name: str, target: str) -> None:
    """Register the loader `module:function` of an encoder; it is imported on first use.

    The function takes `(TextEncoderSettings, device)` and returns a TextEncoder. An installed package registers by
    an entry point of the group `vsel_platform.text_encoders` instead. Raises ConfigError if the name is taken by
    another target.
    """
    if _LOADERS.get(name, target) != target:
        raise ConfigError(f"text encoder {name!r} is registered as {_LOADERS[name]}; choose another name")
    _LOADERS[name] = target


def text_encoder_names() -> list[str]:
    """Names of all registered encoders, those of installed packages included, sorted."""
    return sorted({*_LOADERS, *(point.name for point in entry_points(group=ENTRY_POINT_GROUP))})


def load_text_encoder(settings: TextEncoderSettings, device: str) -> TextEncoder:
    """The encoder that the settings name, on `device` (`auto` chooses).

    Raises ConfigError for an unknown name or device, ModelError or UnsafeCheckpointError from loading.
    """
    target = _LOADERS.get(settings.name)
    if target is None:
        points = [p for p in entry_points(group=ENTRY_POINT_GROUP) if p.name == settings.name]
        if not points:
            known = ", ".join(text_encoder_names())
            raise ConfigError(f"text_encoder.name: unknown encoder {settings.name!r}; known: {known}")
        target = points[0].value
    module, _, function = target.partition(":")
    encoder: TextEncoder = getattr(importlib.import_module(module), function)(settings, resolve_device(device))
    return encoder
