"""The registry of image encoders."""

import subprocess
import sys
from importlib.metadata import EntryPoint

import numpy as np
import pytest

from vsel_platform.config import EncoderSettings
from vsel_platform.errors import ConfigError
from vsel_platform.models import encoders
from vsel_platform.models.encoders import (
    ImageEncoder,
    image_encoder_names,
    load_image_encoder,
    register_image_encoder,
)


class GreyEncoder:
    """Mean brightness as an embedding of one number."""

    name = "grey"
    dimension = 1
    fingerprint = "grey-1"

    def __init__(self, device):
        self.device = device

    def preprocess(self, image):
        return np.asarray(image.resize((2, 2)), dtype=np.float32).transpose(2, 0, 1)

    def encode(self, pixels):
        return pixels.mean(axis=(1, 2, 3), keepdims=False)[:, None]


def load_grey(settings, device):
    return GreyEncoder(device)


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    own = ("efficientnet_lite0", "huggingface")  # other tests may have registered more
    monkeypatch.setattr(encoders, "_LOADERS", {name: encoders._LOADERS[name] for name in own})
    monkeypatch.setitem(sys.modules, "grey_encoder", sys.modules[__name__])


def test_a_registered_encoder_is_loaded_by_its_name():
    register_image_encoder("grey", "grey_encoder:load_grey")
    encoder = load_image_encoder(EncoderSettings(name="grey"), "cpu")
    assert isinstance(encoder, ImageEncoder)
    assert (encoder.name, encoder.device) == ("grey", "cpu")
    assert "grey" in image_encoder_names()


def test_the_loader_gets_a_device_that_exists():
    register_image_encoder("grey", "grey_encoder:load_grey")
    assert load_image_encoder(EncoderSettings(name="grey"), "auto").device in ("cpu", "cuda")


def test_an_installed_package_adds_an_encoder_by_entry_point(monkeypatch):
    point = EntryPoint("grey", "grey_encoder:load_grey", encoders.ENTRY_POINT_GROUP)
    monkeypatch.setattr(encoders, "entry_points", lambda *, group: [point] if "encoders" in group else [])
    assert load_image_encoder(EncoderSettings(name="grey"), "cpu").name == "grey"
    assert image_encoder_names() == ["efficientnet_lite0", "grey", "huggingface"]


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"unknown encoder 'gray'; known: efficientnet_lite0, huggingface"):
        load_image_encoder(EncoderSettings(name="gray"), "cpu")


def test_a_name_is_registered_once():
    register_image_encoder("grey", "grey_encoder:load_grey")
    register_image_encoder("grey", "grey_encoder:load_grey")
    with pytest.raises(ConfigError, match="is registered as grey_encoder:load_grey"):
        register_image_encoder("grey", "another:load")


def test_naming_encoders_imports_no_heavy_library():
    code = (
        "import sys; from vsel_platform.models.encoders import image_encoder_names; image_encoder_names();"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
