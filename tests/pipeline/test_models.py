import shutil
from pathlib import Path

import pytest
from small_project import row, small_rows
from tiny_llava import save_tiny

from vsel_platform.config import EncoderSettings, VlmSettings
from vsel_platform.errors import ModelError
from vsel_platform.identity import fingerprint
from vsel_platform.pipeline import models
from vsel_platform.pipeline.models import confirm_weights, embedding_fingerprint, loss_fingerprint, vlm_fingerprint

# Every setting of a model, with a value that is not its default.
ENCODER = {
    "name": "efficientnet_lite0",
    "model": "other",
    "revision": "abc",
    "feature": "joint",
    "dtype": "bfloat16",
    "batch_size": 7,
    "decode_workers": 9,
}
VLM = {
    "model": "other",
    "revision": "abc",
    "adapter": "directory",
    "template": "plain",
    "dtype": "float32",
    "max_tokens": 77,
    "batch_tokens": 7,
}
SPEED = {"batch_size", "decode_workers", "batch_tokens"}


def test_every_setting_of_a_model_is_tried_here():
    assert set(ENCODER) == set(EncoderSettings.model_fields)
    assert set(VLM) == set(VlmSettings.model_fields)


@pytest.mark.parametrize("field", ENCODER)
def test_settings_of_speed_do_not_rename_embeddings_and_all_others_do(field):
    other = EncoderSettings.model_validate({field: ENCODER[field]})
    assert (embedding_fingerprint(other) == embedding_fingerprint(EncoderSettings())) == (field in SPEED)


@pytest.mark.parametrize("field", VLM)
def test_settings_of_speed_do_not_rename_losses_and_all_others_do(field):
    other = VlmSettings.model_validate({field: VLM[field]})
    assert (vlm_fingerprint(other) == vlm_fingerprint(VlmSettings())) == (field in SPEED)
    assert (loss_fingerprint(other, "a") == loss_fingerprint(VlmSettings(), "a")) == (field in SPEED)


def test_embeddings_keep_the_name_that_they_had_before_there_was_a_choice_of_features():
    before = fingerprint(
        signal=models.EMBEDDING_CODE, name="huggingface", model="facebook/dinov2-base", revision=None, dtype="float32"
    )
    assert embedding_fingerprint(EncoderSettings()) == embedding_fingerprint(EncoderSettings(feature="own")) == before


def test_losses_belong_to_one_adapter():
    assert loss_fingerprint(VlmSettings(), "a") != loss_fingerprint(VlmSettings(), "b")


def test_an_encoder_without_a_choice_of_model_ignores_that_setting():
    one, two = (EncoderSettings(name="efficientnet_lite0", model=model) for model in ("a", "b"))
    assert embedding_fingerprint(one) == embedding_fingerprint(two)


def test_the_weights_of_the_shipped_model_are_part_of_its_name(tmp_path, monkeypatch):
    settings = VlmSettings(model="embedded:demo")
    shipped = vlm_fingerprint(settings)
    copy = tmp_path / "base"
    shutil.copytree(models.EMBEDDED_DIRS["embedded:demo"], copy)
    monkeypatch.setitem(models.EMBEDDED_DIRS, "embedded:demo", copy)
    assert vlm_fingerprint(settings) == shipped
    file = max(copy.iterdir(), key=lambda path: path.stat().st_size)
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    models._files_hash.cache_clear()
    assert vlm_fingerprint(settings) != shipped
    models._files_hash.cache_clear()


def test_weights_are_recorded_at_first_and_compared_from_then_on(fresh):
    ctx = fresh.context()
    confirm_weights(ctx, "name", "one")
    confirm_weights(ctx, "name", "one")
    confirm_weights(ctx, "other", "two")
    with pytest.raises(ModelError, match=r"model name: .*one then, two now.*revision"):
        confirm_weights(ctx, "name", "two")
    confirm_weights(ctx, "name", "one")


@pytest.fixture
def swapped(copied, tmp_path):
    """The copy, while the model directories hold other weights than those that its signals were computed with."""
    import torch
    from transformers import Dinov2Config, Dinov2Model

    encoder, vlm = (Path(copied.values[kind]["model"]) for kind in ("image_encoder", "vlm"))
    for directory in (encoder, vlm):
        shutil.copytree(directory, tmp_path / directory.name)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        Dinov2Model(Dinov2Config.from_pretrained(encoder)).save_pretrained(encoder)
    save_tiny(vlm, seed=1)
    yield copied
    for directory in (encoder, vlm):
        shutil.copytree(tmp_path / directory.name, directory, dirs_exist_ok=True)


@pytest.mark.parametrize(
    ("recipes", "changes", "train"),
    [
        (["presel"], {}, False),
        (["presel"], {"reference.lora.rank": 2}, False),
        (["random"], {"training.lora.rank": 2}, True),
    ],
)
def test_no_stage_mixes_signals_of_two_versions_of_a_model(swapped, recipes, changes, train):
    if not changes:
        swapped.write([*small_rows(), row(300)])
    before = {pointer.key: pointer.version for pointer in swapped.context().store.pointers("image_embeddings")}
    with pytest.raises(ModelError, match="weights changed"):
        swapped.drive(recipes, changes, train=train)
    assert before == {pointer.key: pointer.version for pointer in swapped.context().store.pointers("image_embeddings")}


def test_what_is_stored_is_still_current_when_only_the_weights_changed(swapped):
    """Weights are read when a model is loaded; nothing is loaded while nothing is missing."""
    assert swapped.drive(["presel", "random"], train=True) == []
