"""The registry of text encoders."""

import subprocess
import sys
from importlib.metadata import EntryPoint

import numpy as np
import pytest
from pydantic import ValidationError

from vsel_platform.errors import ConfigError
from vsel_platform.models import text_encoders
from vsel_platform.models.text_encoders import (
    TextEncoder,
    TextEncoderSettings,
    load_text_encoder,
    register_text_encoder,
    text_encoder_names,
)


class LengthEncoder:
    """Length of a text as an embedding of one number."""

    name = "length"
    dimension = 1
    fingerprint = "length-1"

    def __init__(self, device):
        self.device = device

    def encode(self, texts):
        return np.array([[len(text)] for text in texts], dtype=np.float32)


def load_length(settings, device):
    return LengthEncoder(device)


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    monkeypatch.setattr(text_encoders, "_LOADERS", dict(text_encoders._LOADERS))
    monkeypatch.setitem(sys.modules, "length_encoder", sys.modules[__name__])


def test_a_registered_encoder_is_loaded_by_its_name():
    register_text_encoder("length", "length_encoder:load_length")
    encoder = load_text_encoder(TextEncoderSettings(name="length"), "cpu")
    assert isinstance(encoder, TextEncoder)
    assert (encoder.name, encoder.device) == ("length", "cpu")
    assert "length" in text_encoder_names()


def test_the_loader_gets_a_device_that_exists():
    register_text_encoder("length", "length_encoder:load_length")
    assert load_text_encoder(TextEncoderSettings(name="length"), "auto").device in ("cpu", "cuda")


def test_an_installed_package_adds_an_encoder_by_entry_point(monkeypatch):
    point = EntryPoint("length", "length_encoder:load_length", text_encoders.ENTRY_POINT_GROUP)
    monkeypatch.setattr(text_encoders, "entry_points", lambda *, group: [point] if "text" in group else [])
    assert load_text_encoder(TextEncoderSettings(name="length"), "cpu").name == "length"
    assert text_encoder_names() == ["huggingface", "length", "minilm"]


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"unknown encoder 'lenght'; known: huggingface, minilm"):
        load_text_encoder(TextEncoderSettings(name="lenght"), "cpu")


def test_a_name_is_registered_once():
    register_text_encoder("length", "length_encoder:load_length")
    register_text_encoder("length", "length_encoder:load_length")
    with pytest.raises(ConfigError, match="is registered as length_encoder:load_length"):
        register_text_encoder("length", "another:load")


def test_settings_are_checked():
    for wrong in ({"feature": "pooler"}, {"batch_tokens": 0}, {"dtype": "int8"}, {"batch_size": 3}):
        with pytest.raises(ValidationError):
            TextEncoderSettings(**wrong)


def test_naming_encoders_imports_no_heavy_library():
    code = (
        "import sys; from vsel_platform.models.text_encoders import text_encoder_names; text_encoder_names();"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
