"""Checkpoints of every family, loaded by their directory, through all signals of rows."""

import json

import numpy as np
import pytest
from tiny_families import picture, tiny_family
from tiny_llava import save_tiny

from vsel_platform.config import VlmSettings
from vsel_platform.errors import ConfigError, ModelError, UnsafeCheckpointError
from vsel_platform.models.families import FAMILIES
from vsel_platform.models.family_adapter import FamilyAdapter
from vsel_platform.models.llava import LlavaAdapter
from vsel_platform.models.load import load_vlm
from vsel_platform.signals.attention_maps import attention_maps
from vsel_platform.signals.losses import LossRow, answer_losses
from vsel_platform.signals.vision_representations import vision_representations

ROWS = [
    LossRow("a", [("user", "<image>\nWhat colour is the bus?"), ("assistant", "It is red.")], ["p"]),
    LossRow("b", [("user", "<image>\nHow many people are there?"), ("assistant", "Two.")], ["q"]),
    LossRow("c", [("user", "<image>\n<image>\nWhich is red?"), ("assistant", "Two.")], ["q", "p"]),
    LossRow("d", [("user", "What is a bus?"), ("assistant", "A car.")]),
    LossRow("e", [("user", "<image>\nWhat?"), ("assistant", "Red.")], ["gone"]),
]


def images(name):
    if name == "gone":
        raise FileNotFoundError(name)
    return picture(name)


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    """Directory of a checkpoint by family, made when asked for."""
    made = {}

    def directory(family):
        if family not in made:
            made[family] = tiny_family(family).save(tmp_path_factory.mktemp(family))
        return made[family]

    return directory


def settings(directory, **options):
    return VlmSettings(model=str(directory), **{"dtype": "float32", "max_tokens": 1024, **options})


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_checkpoint_gives_every_signal(directories, family):
    model = load_vlm(settings(directories(family)), "cpu")
    assert isinstance(model, FamilyAdapter)
    (batch,) = answer_losses(model, ROWS, images)
    assert {value.sample_id for value in batch.values if value.loss_mean} == set("abcd")
    assert [(f.content_id, f.reason) for f in batch.failures] == [("e", "image_missing")]
    (vectors,) = vision_representations(model, ROWS, images)
    assert [v.sample_id for v in vectors.values] == ["a", "b", "c"]
    assert all(0 < v.n_attended <= v.n_vision for v in vectors.values)
    assert {f.content_id: f.reason for f in vectors.failures} == {"d": "no_image", "e": "image_missing"}
    (maps,) = attention_maps(model, ROWS, images, answer_tokens=4)
    assert {m.sample_id for m in maps.values} | {f.content_id for f in maps.failures} == set("abcde")
    assert all(0 < m.mass < 1 for m in maps.values)


@pytest.mark.parametrize("family", ["qwen3_vl", "llava_onevision"])
def test_values_do_not_depend_on_the_rows_beside_them(directories, family):
    model = load_vlm(settings(directories(family)), "cpu")
    (together,) = answer_losses(model, ROWS[:4], images, batch_tokens=4096)
    alone = [value for row in ROWS[:4] for batch in answer_losses(model, [row], images) for value in batch.values]
    np.testing.assert_allclose([v.loss_sum for v in together.values], [v.loss_sum for v in alone], rtol=1e-4)


def test_fingerprints_tell_weights_templates_and_limits_apart(directories):
    family = tiny_family("qwen2_vl")
    directory = directories("qwen2_vl")
    seen = {load_vlm(settings(directory), "cpu").fingerprint, load_vlm(settings(directory), "cpu").fingerprint}
    assert len(seen) == 1
    seen |= {load_vlm(settings(directory, max_tokens=99), "cpu").fingerprint}
    family.tokenizer.chat_template = family.tokenizer.chat_template.replace("<|im_start|>{{", "<|im_start|> {{")
    other = family.save(directory.parent / "other")
    seen |= {load_vlm(settings(other), "cpu").fingerprint}
    assert len(seen) == 3


def test_llava_is_loaded_as_before(tmp_path):
    assert isinstance(load_vlm(settings(save_tiny(tmp_path)), "cpu"), LlavaAdapter)


def test_what_a_family_cannot_is_said(directories, tmp_path):
    directory = directories("smolvlm")
    with pytest.raises(ConfigError, match="a smolvlm model has its own template: chat"):
        load_vlm(settings(directory, template="vicuna_v1"), "cpu")
    with pytest.raises(ModelError, match="LoRA adapter: no directory"):
        load_vlm(settings(directory), "cpu", adapter_dir=str(tmp_path / "none"))
    family = tiny_family("smolvlm")
    family.tokenizer.chat_template = None
    with pytest.raises(ModelError, match="no chat template"):
        load_vlm(settings(family.save(tmp_path / "bare")), "cpu")


def test_an_unknown_family_is_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises((ModelError, UnsafeCheckpointError)):
        load_vlm(settings(tmp_path), "cpu")
