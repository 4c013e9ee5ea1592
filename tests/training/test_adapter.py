"""LoRA layers and the adapter's directory."""

import hashlib
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from tiny_llava import tiny_adapter, tiny_model

from vsel_platform.config_training import LoraSettings, PrototypeSettings, VisionLoraSettings
from vsel_platform.errors import ModelError
from vsel_platform.models.lora_adapter import ADAPTER_WEIGHTS
from vsel_platform.training.adapter import add_lora, language_targets, parameter_groups, save_adapter, vision_targets
from vsel_platform.training.history import History

LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


PARTS = tiny_adapter().parts
SMALL = LoraSettings(rank=4, alpha=8)


def wrapped(model=None, **options):
    return add_lora(model or tiny_model(), PARTS, SMALL.model_copy(update=options), base_name="org/base")


def saved(model, directory, card="", loss=(1.0,), **options):
    history = History(loss=list(loss), question_loss=[float("nan")] * len(loss), seconds=[0.5] * len(loss))
    return save_adapter(model, directory, card, history, SMALL, **options)


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
    lora, projector, biases = parameter_groups(
        model, PARTS, LoraSettings(learning_rate=1e-3, projector_learning_rate=1e-5)
    )
    assert [group["lr"] for group in (lora, projector, biases)] == [1e-3, 1e-5, 1e-5]
    assert len(projector["params"]) + len(biases["params"]) == 4
    assert sum(len(group["params"]) for group in (lora, projector, biases)) == len(trainable(model))


def test_a_frozen_projector_makes_one_group():
    groups = parameter_groups(wrapped(projector_learning_rate=0), PARTS, LoraSettings(projector_learning_rate=0))
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
    digest = saved(wrapped(), tmp_path / "adapter", "# card\n", [2.0, 1 / 3])
    files = sorted(file.name for file in (tmp_path / "adapter").iterdir())
    assert files == ["README.md", "adapter_config.json", ADAPTER_WEIGHTS, "losses.json"]
    losses = json.loads((tmp_path / "adapter" / "losses.json").read_text())
    assert losses["loss"] == [2.0, 0.333333]
    assert losses["question_loss"] == [None, None]
    assert "seconds" not in losses
    assert (tmp_path / "adapter" / "README.md").read_text() == "# card\n"
    assert digest == hashlib.sha256((tmp_path / "adapter" / ADAPTER_WEIGHTS).read_bytes()).hexdigest()
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "org/base"
    assert (config["r"], config["lora_alpha"]) == (4, 8)
    assert config["modules_to_save"] == ["model.multi_modal_projector"]


def test_questions_are_written_in_order(tmp_path):
    saved(wrapped(), tmp_path / "adapter", questions=[(1, "a", 2), (0, "b", 4), (0, "a", 2)])
    lines = (tmp_path / "adapter" / "asked_questions.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [[0, "a", 2], [0, "b", 4], [1, "a", 2]]


def test_only_what_was_trained_is_stored(tmp_path):
    model = wrapped()
    saved(model, tmp_path / "adapter")
    assert len(load_file(tmp_path / "adapter" / ADAPTER_WEIGHTS)) == len(trainable(model))


def test_an_older_adapter_and_a_left_over_attempt_are_replaced(tmp_path):
    target = tmp_path / "adapter"
    for directory in (target, tmp_path / "adapter.tmp"):
        directory.mkdir()
        (directory / "old").write_text("old")
    saved(wrapped(), target)
    assert not (target / "old").exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["adapter"]


def test_targets_are_expressions_on_whole_paths_inside_a_part():
    model = tiny_model()
    found = language_targets(model, PARTS, r"layers\.1\..*\.(q|v)_proj")
    assert found == [f"model.language_model.layers.1.self_attn.{name}_proj" for name in "qv"]
    example = r"the language model is matched as a whole by 'q_proj'; their paths are such as layers\.0\.self_attn"
    with pytest.raises(ModelError, match="lora.targets: no linear layer of " + example):
        language_targets(model, PARTS, "q_proj")
    with pytest.raises(ModelError, match=r"lora.vision.targets: .* vision tower is matched as a whole by 'nothing'"):
        vision_targets(model, PARTS, "nothing")
    with pytest.raises(ModelError, match="the vision tower of this model has no linear layers"):
        vision_targets(model, replace(PARTS, tower="model.vision_tower.embeddings"), None)


def test_the_tower_gets_lora_up_to_the_layer_that_features_leave_it_from():
    found = vision_targets(tiny_model(), PARTS, None)
    assert found and all(".layers.0." in path for path in found)


def test_each_part_has_rank_scale_and_rate_of_its_own():
    vision = VisionLoraSettings(rank=2, alpha=6, learning_rate=3e-3)
    settings = SMALL.model_copy(update={"vision": vision, "weight_decay": 0.1})
    model = wrapped(vision=vision)
    tower = [m for name, m in model.named_modules() if "vision_tower" in name and hasattr(m, "lora_A")]
    assert tower and {(m.r["default"], m.scaling["default"]) for m in tower} == {(2, 3.0)}
    groups = parameter_groups(model, PARTS, settings)
    # Projector: matrices decay, biases do not.
    assert [group["lr"] for group in groups] == [2e-4, 3e-3, 2e-5, 2e-5]
    assert [group["weight_decay"] for group in groups] == [0.1, 0.1, 0.1, 0.0]


@pytest.mark.parametrize(("own", "wanted"), [(None, 0.3), (0.2, 0.2), (0.0, 0.0)])
def test_the_tower_can_have_a_dropout_of_its_own(own, wanted):
    model = wrapped(dropout=0.3, vision=VisionLoraSettings(rank=2, dropout=own))
    found = {"vision_tower": set(), "language_model": set()}
    for name, module in model.named_modules():
        if hasattr(module, "lora_A"):
            found["vision_tower" if "vision_tower" in name else "language_model"].add(module.lora_dropout["default"].p)
    assert found == {"vision_tower": {wanted}, "language_model": {0.3}}


def test_prototypes_need_a_projector_that_is_trained():
    prototypes = PrototypeSettings(prototypes=2)
    with pytest.raises(ModelError, match=r"lora\.prototypes: needs"):
        wrapped(prototypes=prototypes, projector_learning_rate=0.0)
    assert any("extractor" in name for name in trainable(wrapped(prototypes=prototypes)))
