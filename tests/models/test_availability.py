"""Whether weights are on this machine, without loading them."""

import json

import pytest

from vsel_platform.config import EncoderSettings, TextEncoderSettings, VlmSettings
from vsel_platform.models import availability as module
from vsel_platform.models.availability import availability, missing_weights
from vsel_platform.models.encoders import register_image_encoder


def test_a_directory_with_weights_is_there_and_an_empty_one_is_not(tmp_path):
    settings = EncoderSettings(model=str(tmp_path))
    found = availability("image_encoder", settings)
    assert not found.available
    assert "no .safetensors weights in this directory" in found.to_text()
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert availability("image_encoder", settings).available


def test_a_directory_that_is_not_there_is_no_model_of_the_hub(tmp_path):
    found = availability("vlm", VlmSettings(model=str(tmp_path / "none")))
    assert "there is no such directory" in found.to_text()


def test_every_shard_of_an_index_is_needed(tmp_path):
    names = ["model-00001.safetensors", "model-00002.safetensors"]
    index = {"weight_map": {"a": names[0], "b": names[1], "c": names[0]}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / names[0]).write_bytes(b"")
    assert missing_weights(tmp_path) == names[1]
    (tmp_path / names[1]).write_bytes(b"")
    assert missing_weights(tmp_path) == ""
    (tmp_path / "model.safetensors.index.json").write_text("[")
    assert missing_weights(tmp_path) == "readable model.safetensors.index.json"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of the hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return tmp_path


def cached(hub, *files):
    """A snapshot of org/model in the cache."""
    folder = hub / "models--org--model"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    for name in files:
        (folder / "snapshots" / "abc" / name).write_bytes(b"")


def test_a_model_of_the_hub_is_told_by_its_cache(hub):
    found = availability("vlm", VlmSettings(model="org/model", revision="main"))
    assert not found.available
    assert "`hf download org/model --revision main`" in found.advice
    assert "--demo-models" in found.advice
    cached(hub, "config.json", "model.safetensors")
    found = availability("vlm", VlmSettings(model="org/model"))
    assert found.available
    assert "in the cache of the hub" in found.detail


def test_a_snapshot_without_its_weights_is_not_there(hub):
    cached(hub, "config.json")
    assert not availability("image_encoder", EncoderSettings(model="org/model")).available


def test_without_the_hub_nothing_is_said_to_be_downloaded(hub, monkeypatch):
    assert "the first run downloads them" in availability("vlm", VlmSettings(model="org/model")).advice
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE" in availability("vlm", VlmSettings(model="org/model")).advice


@pytest.mark.parametrize(
    "settings",
    [
        EncoderSettings(name="efficientnet_lite0"),
        TextEncoderSettings(name="minilm"),
        VlmSettings(model="embedded:demo"),
    ],
)
def test_packaged_models_are_there_when_their_package_is(settings, monkeypatch):
    assert availability("model", settings).available
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    found = availability("model", settings)
    assert not found.available
    assert "pip install" in found.advice


def test_other_encoders_are_there_when_they_are_registered():
    settings = EncoderSettings(name="an_encoder_of_ones_own")
    assert "known: " in availability("image_encoder", settings).advice
    register_image_encoder("an_encoder_of_ones_own", "nowhere:load")
    assert availability("image_encoder", settings).available
