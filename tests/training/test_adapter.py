"""LoRA layers and the adapter's directory."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file
from tiny_llava import tiny_model

from vsel_platform.config_training import LoraSettings
from vsel_platform.errors import ModelError
from vsel_platform.training.adapter import WEIGHTS_FILE, add_lora, parameter_groups, save_adapter

LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def wrapped(model=None, **options):
    return add_lora(model or tiny_model(), LoraSettings(rank=4, alpha=8, **options), base_name="org/base")


def trainable(model):
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def test_every_linear_layer_of_the_language_model_gets_lora_and_nothing_else_trains():
    names = trainable(wrapped(projector_learning_rate=0))
    assert len(names) == 2 * 2 * len(LINEAR_LAYERS)
    assert all("language_model" in name and ("lora_A" in name or "lora_B" in name) for name in names)
    for layer in LINEAR_LAYERS:
        assert sum(f".{layer}." in name for name in names) == 4


def test_the_projector_trains_with_its_own_rate():
    model = wrapped(learning_rate=1e-3, projector_learning_rate=1e-5)
    lora, projector = parameter_groups(model, LoraSettings(learning_rate=1e-3, projector_learning_rate=1e-5))
    assert (lora["lr"], projector["lr"]) == (1e-3, 1e-5)
    assert len(projector["params"]) == 4
    assert len(lora["params"]) + len(projector["params"]) == len(trainable(model))


def test_a_frozen_projector_makes_one_group():
    groups = parameter_groups(wrapped(projector_learning_rate=0), LoraSettings(projector_learning_rate=0))
    assert len(groups) == 1


def test_what_trains_is_float32_in_a_bfloat16_model():
    model = wrapped(tiny_model().to(torch.bfloat16))
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert model.get_base_model().model.language_model.embed_tokens.weight.dtype == torch.bfloat16


def test_a_language_model_without_linear_layers_is_refused():
    model = tiny_model()
    model.model.language_model = torch.nn.Module()
    with pytest.raises(ModelError, match="no linear layers"):
        wrapped(model)


def test_the_directory_holds_weights_configuration_card_and_losses(tmp_path):
    digest = save_adapter(wrapped(), tmp_path / "adapter", "# card\n", [2.0, 1 / 3])
    files = sorted(file.name for file in (tmp_path / "adapter").iterdir())
    assert files == ["README.md", "adapter_config.json", WEIGHTS_FILE, "losses.json"]
    assert json.loads((tmp_path / "adapter" / "losses.json").read_text()) == [2.0, 0.333333]
    assert (tmp_path / "adapter" / "README.md").read_text() == "# card\n"
    assert digest == hashlib.sha256((tmp_path / "adapter" / WEIGHTS_FILE).read_bytes()).hexdigest()
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "org/base"
    assert (config["r"], config["lora_alpha"], config["modules_to_save"]) == (4, 8, ["multi_modal_projector"])


def test_only_what_was_trained_is_stored(tmp_path):
    model = wrapped()
    save_adapter(model, tmp_path / "adapter", "", [1.0])
    assert len(load_file(tmp_path / "adapter" / WEIGHTS_FILE)) == len(trainable(model))


def test_an_older_adapter_and_a_left_over_attempt_are_replaced(tmp_path):
    target = tmp_path / "adapter"
    for directory in (target, tmp_path / "adapter.tmp"):
        directory.mkdir()
        (directory / "old").write_text("old")
    save_adapter(wrapped(), target, "", [1.0])
    assert not (target / "old").exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["adapter"]
