"""What stays whole of a model that is shared out."""

from pathlib import Path

import pytest
import torch
from tiny_families import picture as family_picture
from tiny_families import tiny_family
from tiny_llava import picture, tiny_adapter

from vsel_platform.config import VlmSettings
from vsel_platform.config_training import LoraSettings, RuntimeSettings, VisionLoraSettings
from vsel_platform.errors import ConfigError
from vsel_platform.training.lora import TrainingJob, train_lora
from vsel_platform.training.sharding import configuration_of, kept_whole, require_possible

EXAMPLES = Path(__file__).parents[2] / "examples"


def names(model):
    return [name for name, _ in model.model.named_parameters()]


@pytest.mark.parametrize("family", ["llava", "llava_next", "llava_onevision", "qwen3_vl", "smolvlm"])
def test_frozen_parts_are_no_parts_of_the_model_but_work_as_before(family):
    model, show = (tiny_adapter(), picture) if family == "llava" else (tiny_family(family).adapter(), family_picture)
    before, image = names(model), model.preprocess(show("p"))
    with torch.no_grad():
        expected = model.features([image])[0]
        with kept_whole(model):
            inside = names(model)
            torch.testing.assert_close(model.features([image])[0], expected)
    kept = {name for name in inside if not name.startswith((model.parts.language, "lm_head"))}
    # LLaVA's projector is passed within the loss, so it may be shared out.
    assert all("multi_modal_projector" in name for name in kept) and bool(kept) == (family == "llava")
    assert any(name.startswith(model.parts.language) for name in inside)
    assert names(model) == before or sorted(names(model)) == sorted(before)


def test_a_trained_tower_of_llava_is_shared_out():
    model = tiny_adapter()
    model.tower_gradients = True
    with kept_whole(model):
        assert any("vision_tower" in name for name in names(model))


def test_a_trained_tower_of_another_family_is_refused():
    model = tiny_family("qwen2_vl").adapter()
    model.tower_gradients = True
    with pytest.raises(ConfigError, match="train only the language model of this family"), kept_whole(model):
        pass


def test_under_zero_3_no_tower_is_trained():
    model = tiny_adapter()
    model.tower_gradients = True
    with pytest.raises(ConfigError, match="under ZeRO-3 the vision tower"), kept_whole(model, zero_stage=3):
        pass


def test_under_zero_3_no_tower_is_trained_is_said_before_a_model_is_loaded():
    tower = LoraSettings(vision=VisionLoraSettings(rank=2))
    zero_2, zero_3 = (RuntimeSettings(deepspeed=str(EXAMPLES / f"zero{stage}.json")) for stage in (2, 3))
    with pytest.raises(ConfigError, match="under ZeRO-3 the vision tower"):
        train_lora(VlmSettings(model="nowhere"), [], tower, picture, Path(), TrainingJob(runtime=zero_3))
    require_possible(tower, zero_2)
    require_possible(LoraSettings(), zero_3)


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no file"), ("{", "is no JSON"), ("[]", "holds no JSON object")]
)
def test_a_configuration_that_cannot_be_read_is_named(tmp_path, content, message):
    file = tmp_path / "zero.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=rf"training\.runtime\.fsdp: .*{message}"):
        configuration_of(RuntimeSettings(fsdp=str(file)), "fsdp")


def test_all_is_as_before_after_an_error():
    model = tiny_adapter()
    with pytest.raises(ZeroDivisionError), kept_whole(model):
        raise ZeroDivisionError
    assert any("vision_tower" in name for name in names(model))
