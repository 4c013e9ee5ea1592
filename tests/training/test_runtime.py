"""Where a training runs and whom it tells."""

import json
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
from accelerate import PartialState

from vsel_platform.config_training import LoraSettings, RuntimeSettings
from vsel_platform.errors import ConfigError
from vsel_platform.ranks import ALONE, Share
from vsel_platform.training import runtime as module
from vsel_platform.training.runtime import placed, state_kind, training_arguments

EXAMPLES = Path(__file__).parents[2] / "examples"


def arguments(tmp_path, *, device="cpu", share=ALONE, settings=None, **runtime):
    return training_arguments(
        settings or LoraSettings(),
        RuntimeSettings(**runtime),
        tmp_path,
        device,
        "project-recipe",
        share,
        layer="MyLayer",
    )


def test_settings_reach_the_trainer(tmp_path):
    with placed("cpu", ALONE, RuntimeSettings(), "x"):
        found = arguments(tmp_path, settings=LoraSettings(seed=3, max_grad_norm=0.5))
    assert (found.seed, found.max_grad_norm, found.run_name) == (3, 0.5, "project-recipe")
    assert str(found.device) == "cpu"
    assert found.report_to == []
    assert found.save_strategy == "no"


def test_nothing_is_left_behind():
    before = dict(os.environ)
    with placed("cpu", ALONE, RuntimeSettings(), "x"):
        os.environ["ACCELERATE_SOMETHING"] = "1"
        PartialState(cpu=True)
        assert os.environ["ACCELERATE_TORCH_DEVICE"] == "cpu"
    assert dict(os.environ) == before
    assert PartialState._shared_state == {}


def test_a_missing_tracker_is_named(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="report_to: tensorboard is not installed; pip install tensorboard"):
        module.require_trackers(RuntimeSettings(report_to="tensorboard"))


def test_what_trackers_write_lies_in_the_log_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.delenv("WANDB_DIR", raising=False)
    logs = tmp_path / "logs"
    runtime = RuntimeSettings(report_to=("tensorboard", "wandb"), log_dir=str(logs))
    with placed("cpu", ALONE, runtime, "project-recipe"):
        found = {name: os.environ[name] for name in ("TENSORBOARD_LOGGING_DIR", "WANDB_DIR", "WANDB_PROJECT")}
    assert found == {
        "TENSORBOARD_LOGGING_DIR": str(logs / "project-recipe"), "WANDB_DIR": str(logs), "WANDB_PROJECT": "mine"
    }  # fmt: skip
    assert logs.is_dir()


def test_without_trackers_no_directory_is_made(tmp_path):
    with placed("cpu", ALONE, RuntimeSettings(log_dir=str(tmp_path / "logs")), "x"):
        assert "TENSORBOARD_LOGGING_DIR" not in os.environ
    assert not (tmp_path / "logs").exists()


def test_a_run_of_wandb_ends_with_its_training(tmp_path, monkeypatch):
    finished = []
    wandb = ModuleType("wandb")
    wandb.finish = lambda: finished.append(True)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    with placed("cpu", ALONE, RuntimeSettings(report_to=("wandb",), log_dir=str(tmp_path)), "x"):
        assert not finished
    assert finished == [True]


@pytest.mark.parametrize("kind", ["deepspeed", "fsdp"])
def test_what_shares_a_model_out_needs_its_file_and_devices(tmp_path, kind):
    with pytest.raises(ConfigError, match=f"{kind}: no file .*nothing.json"):
        arguments(tmp_path, **{kind: str(tmp_path / "nothing.json")})
    file = tmp_path / "x.json"
    file.write_text("{}")
    for device, share in (("cpu", Share(0, 2)), ("cuda", ALONE)):
        with pytest.raises(ConfigError, match=f"{kind}: shares a model between CUDA devices; set compute.processes"):
            arguments(tmp_path, device=device, share=share, **{kind: str(file)})


def test_deepspeed_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="DeepSpeed is not installed; pip install deepspeed"):
        arguments(tmp_path, device="cuda:0", share=Share(0, 2), deepspeed=str(EXAMPLES / "zero2.json"))


@pytest.mark.parametrize("stage", [2, 3])
def test_the_examples_of_deepspeed_are_llavas(stage):
    zero = json.loads((EXAMPLES / f"zero{stage}.json").read_text())["zero_optimization"]
    assert (zero["stage"], zero["overlap_comm"], zero["contiguous_gradients"]) == (stage, True, True)
    assert zero["sub_group_size"] == 1e9
    assert zero.get("stage3_gather_16bit_weights_on_model_save", False) == (stage == 3)
    # transformers would take what is "auto" here from the configuration of a model, which a loss has not.
    assert "auto" not in zero.values()


def test_the_example_of_fsdp_wraps_the_language_models_layers(tmp_path):
    runtime = RuntimeSettings(fsdp=str(EXAMPLES / "fsdp.json"))
    options = module._sharding(runtime, "cuda:0", Share(0, 2), "MyLayer")
    with placed("cpu", ALONE, RuntimeSettings(), "x"):
        found = module.transformers.TrainingArguments(str(tmp_path), use_cpu=True, report_to="none", **options)
    assert found.fsdp_plugin_args["fsdp_version"] == 2
    assert found.fsdp_plugin_args["transformer_cls_names_to_wrap"] == "MyLayer"


def test_fsdp_keeps_whole_states_which_alone_can_be_resumed_from(tmp_path):
    file = tmp_path / "fsdp.json"
    file.write_text('{"version": 2}')
    options = module._sharding(RuntimeSettings(fsdp=str(file)), "cuda:0", Share(0, 2), "MyLayer")
    assert options["fsdp_config"]["state_dict_type"] == "FULL_STATE_DICT"
    file.write_text('{"state_dict_type": "SHARDED_STATE_DICT"}')
    with pytest.raises(ConfigError, match="only be resumed from FULL_STATE_DICT; leave it out"):
        module._sharding(RuntimeSettings(fsdp=str(file)), "cuda:0", Share(0, 2), "MyLayer")


def test_a_state_depends_on_the_configuration_and_the_processes_where_a_model_is_shared_out():
    def kind(world, **files):
        runtime = RuntimeSettings(**{name: str(EXAMPLES / file) for name, file in files.items()})
        return state_kind(runtime, Share(0, world))

    assert kind(1) == kind(4) == "whole-model"
    shared = [
        kind(2, fsdp="fsdp.json"),
        kind(4, fsdp="fsdp.json"),
        kind(4, deepspeed="zero2.json"),
        kind(4, deepspeed="zero3.json"),
    ]
    assert len({*shared, "whole-model"}) == 5
    assert kind(2, fsdp="fsdp.json") == shared[0]
