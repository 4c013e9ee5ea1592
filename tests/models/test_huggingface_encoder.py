"""Encoders from Hugging Face checkpoints."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_encoders import JOINT_KINDS, save_tiny_clip, save_tiny_dinov2, save_tiny_joint

from vsel_platform.config import EncoderSettings
from vsel_platform.errors import ModelError, UnsafeCheckpointError
from vsel_platform.models.huggingface_encoder import load
from vsel_platform.signals.image_embeddings import embed_images


@pytest.fixture(scope="module")
def dinov2_dir(tmp_path_factory):
    return save_tiny_dinov2(tmp_path_factory.mktemp("dinov2"))


@pytest.fixture(scope="module")
def clip_dir(tmp_path_factory):
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


def settings(directory, **options):
    return EncoderSettings(model=str(directory), **options)


def noise(width=80, height=60, mode="RGB", seed=0):
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def test_dinov2_gives_the_cls_token_after_the_final_layernorm(dinov2_dir):
    from transformers import Dinov2Model

    encoder = load(settings(dinov2_dir), "cpu")
    pixels = np.stack([encoder.preprocess(noise(seed=i)) for i in range(3)])
    with torch.no_grad():
        expected = Dinov2Model.from_pretrained(dinov2_dir)(torch.from_numpy(pixels)).last_hidden_state[:, 0]
    assert encoder.feature == "cls"
    assert encoder.dimension == 32
    assert pixels.shape == (3, 3, 56, 56)
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(encoder.encode(pixels), expected, atol=1e-6)


def test_clip_gives_the_pooled_token_of_its_vision_tower(clip_dir):
    from transformers import CLIPModel

    encoder = load(settings(clip_dir), "cpu")
    pixels = np.stack([encoder.preprocess(noise(seed=i)) for i in range(2)])
    with torch.no_grad():
        tower = CLIPModel.from_pretrained(clip_dir).vision_model
        expected = tower(torch.from_numpy(pixels)).pooler_output
    assert encoder.feature == "pooled"
    np.testing.assert_allclose(encoder.encode(pixels), expected, atol=1e-6)


def small_models():
    """Other architectures: name of the configuration, its model, and where the feature is."""
    import transformers as t

    vit = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    square = {"image_size": 28, "patch_size": 14}
    return {
        "vit": (t.ViTModel(t.ViTConfig(**vit, **square), add_pooling_layer=False), "cls"),
        "siglip": (t.SiglipVisionModel(t.SiglipVisionConfig(**vit, **square)), "pooled"),
        "convnext": (t.ConvNextModel(t.ConvNextConfig(depths=[1, 1], hidden_sizes=[8, 12], num_stages=2)), "pooled"),
    }


@pytest.mark.parametrize("kind", ["vit", "siglip", "convnext"])
def test_other_architectures_give_their_documented_feature(tmp_path, clip_dir, kind):
    model, feature = small_models()[kind]
    model.eval().save_pretrained(tmp_path)
    shutil.copy(clip_dir / "preprocessor_config.json", tmp_path)
    encoder = load(settings(tmp_path), "cpu")
    pixels = encoder.preprocess(noise())[None]
    with torch.no_grad():
        output = model(torch.from_numpy(pixels))
    expected = output.last_hidden_state[:, 0] if feature == "cls" else output.pooler_output
    assert encoder.feature == feature
    assert encoder.dimension == expected.shape[1]
    np.testing.assert_allclose(encoder.encode(pixels), expected, atol=1e-5)


@pytest.fixture(scope="module", params=JOINT_KINDS)
def joint_dir(request, tmp_path_factory):
    return save_tiny_joint(tmp_path_factory.mktemp("joint"), request.param)


PICTURES = [noise(), noise(20, 70, seed=1), noise(200, 3, seed=2)]


def plain_features(directory):
    """get_image_features of the whole model for the pictures, as its own processor shows them."""
    from transformers import AutoImageProcessor, AutoModel

    processor = AutoImageProcessor.from_pretrained(directory, backend="pil")
    shown = processor(images=PICTURES, return_tensors="pt", input_data_format="channels_last")
    with torch.no_grad():
        return AutoModel.from_pretrained(directory).get_image_features(**shown).pooler_output


def test_joint_is_the_image_in_the_space_of_texts(joint_dir):
    encoder = load(settings(joint_dir, feature="joint"), "cpu")
    pixels = np.stack([encoder.preprocess(picture) for picture in PICTURES])
    expected = plain_features(joint_dir)
    assert encoder.feature == "joint"
    assert encoder.dimension == expected.shape[1]
    np.testing.assert_allclose(encoder.encode(pixels), expected, atol=1e-5)


def test_joint_vectors_are_the_same_in_padded_batches(joint_dir):
    encoder = load(settings(joint_dir, feature="joint"), "cpu")
    items = [(str(i), lambda picture=picture: picture) for i, picture in enumerate(PICTURES)]
    batches = list(embed_images(encoder, items, batch_size=2))
    assert [failure for batch in batches for failure in batch.failures] == []
    found = np.concatenate([batch.vectors for batch in batches])
    np.testing.assert_allclose(found, plain_features(joint_dir), atol=1e-5)


def test_the_own_feature_of_a_joint_checkpoint_is_its_vision_tower_s(joint_dir):
    from transformers import AutoImageProcessor, AutoModel

    own, joint = (load(settings(joint_dir, feature=feature), "cpu") for feature in ("own", "joint"))
    shown = AutoImageProcessor.from_pretrained(joint_dir, backend="pil")(
        images=PICTURES, return_tensors="pt", input_data_format="channels_last"
    )
    with torch.no_grad():
        expected = AutoModel.from_pretrained(joint_dir).vision_model(**shown).pooler_output
    pixels = np.stack([own.preprocess(picture) for picture in PICTURES])
    np.testing.assert_allclose(own.encode(pixels), expected, atol=1e-5)
    assert own.feature == "pooled"
    assert own.fingerprint != joint.fingerprint


def test_joint_needs_both_towers(dinov2_dir, tmp_path):
    from transformers import CLIPModel

    with pytest.raises(ModelError, match=r"image_encoder\.model: .*an image and a text tower .*this one is dinov2"):
        load(settings(dinov2_dir, feature="joint"), "cpu")
    whole = save_tiny_joint(tmp_path / "whole")
    half = tmp_path / "half"
    shutil.copytree(whole, half)
    CLIPModel.from_pretrained(whole).vision_model.save_pretrained(half)
    with pytest.raises(ModelError, match="this one is clip_vision_model"):
        load(settings(half, feature="joint"), "cpu")
    state = load_file(whole / "model.safetensors")
    del state["text_projection.weight"]
    save_file(state, whole / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks the weights text_projection\.weight"):
        load(settings(whole, feature="joint"), "cpu")


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK", "LA", "I;16"])
def test_every_colour_mode_becomes_rgb(dinov2_dir, mode):
    encoder = load(settings(dinov2_dir), "cpu")
    image = noise().convert("L").convert(mode) if mode != "P" else noise().convert("P")
    assert encoder.preprocess(image).shape == (3, 56, 56)


@pytest.mark.parametrize("size", [(3, 3), (1, 200), (200, 3), (1, 1)])
def test_very_thin_pictures_are_not_taken_for_channels(dinov2_dir, size):
    encoder = load(settings(dinov2_dir), "cpu")
    red = Image.new("RGB", size, (255, 0, 0))
    mean = encoder.preprocess(red).mean(axis=(1, 2))
    assert mean[0] > 1
    assert mean[1] < -1
    assert mean[2] < -1


def test_the_fingerprint_follows_weights_preprocessing_and_dtype(dinov2_dir, tmp_path):
    base = load(settings(dinov2_dir), "cpu").fingerprint
    copy = tmp_path / "copy"
    shutil.copytree(dinov2_dir, copy)
    assert load(settings(copy), "cpu").fingerprint == base
    assert load(settings(dinov2_dir, dtype="bfloat16"), "cpu").fingerprint != base
    assert load(settings(dinov2_dir, batch_size=7, decode_workers=0), "cpu").fingerprint == base
    processor = copy / "preprocessor_config.json"
    processor.write_text(json.dumps({**json.loads(processor.read_text()), "resample": 2}))
    assert load(settings(copy), "cpu").fingerprint != base
    other = save_tiny_dinov2(tmp_path / "other", seed=1)
    assert load(settings(other), "cpu").fingerprint != base


def test_bfloat16_vectors_come_as_float32_and_are_close(dinov2_dir):
    exact, rounded = (load(settings(dinov2_dir, dtype=d), "cpu") for d in ("float32", "bfloat16"))
    pixels = exact.preprocess(noise())[None]
    assert rounded.encode(pixels).dtype == np.float32
    np.testing.assert_allclose(rounded.encode(pixels), exact.encode(pixels), atol=0.1)


def test_a_pickled_checkpoint_is_refused(dinov2_dir, tmp_path):
    copy = tmp_path / "pickled"
    shutil.copytree(dinov2_dir, copy)
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(UnsafeCheckpointError, match=r"pytorch_model\.bin"):
        load(settings(copy), "cpu")


def test_missing_weights_are_not_replaced_by_random_ones(dinov2_dir, tmp_path):
    copy = tmp_path / "partial"
    shutil.copytree(dinov2_dir, copy)
    state = load_file(copy / "model.safetensors")
    del state["layernorm.weight"]
    save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks the weights layernorm\.weight"):
        load(settings(copy), "cpu")


def test_a_language_model_is_refused(tmp_path):
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(vocab_size=20, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    LlamaModel(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(settings(tmp_path), "cpu")


def test_remote_code_is_never_run(dinov2_dir, tmp_path):
    copy = tmp_path / "remote"
    shutil.copytree(dinov2_dir, copy)
    marker = tmp_path / "executed"
    (copy / "modeling_own.py").write_text(f"open({str(marker)!r}, 'w')\nclass Own: pass\n")
    config = json.loads((copy / "config.json").read_text())
    config.update(model_type="own", auto_map={"AutoConfig": "modeling_own.Own", "AutoModel": "modeling_own.Own"})
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(settings(copy), "cpu")
    assert not marker.exists()
