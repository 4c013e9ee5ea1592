"""LLaVA behind the protocol, and how it is loaded."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_encoders import save_tiny_dinov2
from tiny_llava import (
    IMAGE_TOKENS,
    conversation,
    picture,
    save_tiny,
    tiny_adapter,
    tiny_image_processor,
    tiny_model,
    tiny_tokenizer,
)

from vsel_platform.config import VlmSettings
from vsel_platform.config_training import LoraSettings
from vsel_platform.errors import ConfigError, ModelError, UnsafeCheckpointError
from vsel_platform.models.llava import LlavaAdapter, load_llava
from vsel_platform.models.quiet import quiet_transformers
from vsel_platform.models.templates import load_template
from vsel_platform.training.adapter import add_lora, save_adapter
from vsel_platform.training.history import History


@pytest.fixture(scope="module")
def base_dir(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def adapter_dir(tmp_path_factory, base_dir):
    """An adapter whose LoRA matrices and projector differ from the base."""
    options = LoraSettings(rank=4, alpha=8)
    model = tiny_model()
    peft_model = add_lora(model, tiny_adapter().parts, options, base_name=str(base_dir))
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        for parameter in peft_model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    directory = tmp_path_factory.mktemp("adapter") / "a"
    save_adapter(peft_model, directory, "card", History(), options)
    return directory


def settings(directory, **options):
    return VlmSettings(model=str(directory), **{"dtype": "float32", **options})


def losses(model):
    from vsel_platform.signals.losses import LossRow, answer_losses

    row = LossRow("r", conversation("<image>\nWhat?", "It is red."), ["a"])
    return [value.loss_sum for batch in answer_losses(model, [row], picture) for value in batch.values]


def test_a_loaded_checkpoint_computes_what_the_saved_model_does(base_dir):
    assert losses(load_llava(settings(base_dir), "cpu")) == pytest.approx(losses(tiny_adapter()), abs=1e-4)


def test_features_and_projection_are_those_of_transformers(base_dir):
    model = load_llava(settings(base_dir), "cpu")
    pixels = np.stack([model.preprocess(picture(i)) for i in "abc"])
    with torch.no_grad():
        features = model.project(model.tower_features(pixels))
        expected = model.model.get_image_features(torch.from_numpy(pixels)).pooler_output
    assert features.shape == (3, IMAGE_TOKENS, 32)
    np.testing.assert_allclose(features, torch.stack(list(expected)), atol=1e-6)


def test_several_vision_layers_are_joined():
    model = tiny_model()
    model.config.vision_feature_layer = [-2, -1]
    model.config.vision_feature_select_strategy = "full"
    model.model.multi_modal_projector.linear_1 = torch.nn.Linear(32, 32)
    adapter = tiny_adapter(model=model)
    features = adapter.tower_features(adapter.preprocess(picture("a"))[None])
    assert features.shape == (1, IMAGE_TOKENS + 1, 32)


def test_the_adapter_changes_losses_and_fingerprint(base_dir, adapter_dir):
    base = load_llava(settings(base_dir), "cpu")
    tuned = load_llava(settings(base_dir), "cpu", adapter_dir=str(adapter_dir))
    assert tuned.fingerprint != base.fingerprint
    assert abs(losses(tuned)[0] - losses(base)[0]) > 1e-3


def test_the_merged_adapter_computes_what_its_layers_do(base_dir, adapter_dir):
    import peft

    with quiet_transformers():
        live = peft.PeftModel.from_pretrained(load_llava(settings(base_dir), "cpu").model, str(adapter_dir))
    merged = load_llava(settings(base_dir), "cpu", adapter_dir=str(adapter_dir))
    expected = tiny_adapter(model=live.get_base_model())
    assert losses(merged) == pytest.approx(losses(expected), abs=1e-4)


@pytest.mark.parametrize("options", [{"template": "plain"}, {"max_tokens": 100}, {"dtype": "bfloat16"}])
def test_the_fingerprint_follows_what_changes_results(base_dir, options):
    base = load_llava(settings(base_dir), "cpu").fingerprint
    assert load_llava(settings(base_dir, **options), "cpu").fingerprint != base


def test_the_fingerprint_ignores_place_and_speed(base_dir, tmp_path):
    copy = shutil.copytree(base_dir, tmp_path / "copy")
    base = load_llava(settings(base_dir), "cpu").fingerprint
    assert load_llava(settings(copy, batch_tokens=17), "auto").fingerprint == base


def test_bfloat16_losses_are_close(base_dir):
    exact, rounded = (losses(load_llava(settings(base_dir, dtype=d), "cpu")) for d in ("float32", "bfloat16"))
    assert rounded == pytest.approx(exact, rel=0.05)


def test_a_pickled_adapter_is_refused(base_dir, adapter_dir, tmp_path):
    copy = shutil.copytree(adapter_dir, tmp_path / "copy")
    torch.save(load_file(copy / "adapter_model.safetensors"), copy / "adapter_model.bin")
    (copy / "adapter_model.safetensors").unlink()
    with pytest.raises(UnsafeCheckpointError, match=r"adapter_model\.bin"):
        load_llava(settings(base_dir), "cpu", adapter_dir=str(copy))


def test_an_adapter_with_non_finite_weights_is_refused(base_dir, adapter_dir, tmp_path):
    copy = shutil.copytree(adapter_dir, tmp_path / "copy")
    state = load_file(copy / "adapter_model.safetensors")
    name = next(key for key in state if "lora_B" in key)
    state[name] = torch.full_like(state[name], float("nan"))
    save_file(state, copy / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="does not fit the model"):
        load_llava(settings(base_dir), "cpu", adapter_dir=str(copy))


def rewritten(adapter_dir, copy, change):
    shutil.copytree(adapter_dir, copy)
    state = change(load_file(copy / "adapter_model.safetensors"))
    save_file(state, copy / "adapter_model.safetensors")
    return str(copy)


def test_an_adapter_with_missing_or_unknown_layers_is_refused(base_dir, adapter_dir, tmp_path):
    def without_a_layer(state):
        del state[next(key for key in state if "layers.1.mlp.up_proj.lora_A" in key)]
        return state

    def with_another_layer(state):
        key = next(key for key in state if "layers.1.mlp.up_proj.lora_A" in key)
        return {**state, key.replace("layers.1", "layers.7"): state[key].clone()}

    for name, change in (("missing", without_a_layer), ("unknown", with_another_layer)):
        directory = rewritten(adapter_dir, tmp_path / name, change)
        with pytest.raises(ModelError, match=r"does not fit the model: .*up_proj"):
            load_llava(settings(base_dir), "cpu", adapter_dir=directory)


def test_an_adapter_for_another_width_is_refused(adapter_dir, tmp_path):
    tiny_model(width=64).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    tiny_image_processor().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="does not fit the model"):
        load_llava(settings(tmp_path), "cpu", adapter_dir=str(adapter_dir))


def test_an_adapter_that_is_not_there_is_named(base_dir, tmp_path):
    with pytest.raises(ModelError, match="no directory"):
        load_llava(settings(base_dir), "cpu", adapter_dir=str(tmp_path / "nothing"))


def test_a_pickled_base_is_refused(base_dir, tmp_path):
    copy = shutil.copytree(base_dir, tmp_path / "copy")
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(UnsafeCheckpointError):
        load_llava(settings(copy), "cpu")


def test_missing_weights_are_not_replaced_by_random_ones(base_dir, tmp_path):
    copy = shutil.copytree(base_dir, tmp_path / "copy")
    state = load_file(copy / "model.safetensors")
    dropped = next(key for key in state if "linear_2.bias" in key)
    del state[dropped]
    save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks the weights .*linear_2\.bias"):
        load_llava(settings(copy), "cpu")


def test_another_kind_of_model_is_named(tmp_path):
    directory = save_tiny_dinov2(tmp_path)
    with pytest.raises(ModelError, match=r"is a .dinov2. model; known are llava .* and llava_next"):
        load_llava(settings(directory), "cpu")


def test_an_unknown_embedded_model_and_template_are_config_errors(base_dir):
    with pytest.raises(ConfigError, match="unknown embedded model 'embedded:big'"):
        load_llava(VlmSettings(model="embedded:big"), "cpu")
    with pytest.raises(ConfigError, match="unknown template"):
        load_llava(settings(base_dir, template="chatml"), "cpu")


def make_adapter(tokenizer, model=None, max_tokens=64):
    return LlavaAdapter(
        model or tiny_model(),
        tokenizer,
        tiny_adapter()._image_processor,
        load_template("plain"),
        name="x",
        weights="x",
        device="cpu",
        max_tokens=max_tokens,
    )


def test_a_tokenizer_without_offsets_or_end_token_is_refused():
    class Slow:
        is_fast = False
        eos_token = "</s>"

    with pytest.raises(ModelError, match="Slow knows no character offsets"):
        make_adapter(Slow())
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="no end token"):
        make_adapter(tokenizer)


def test_the_fingerprint_ignores_how_the_tokenizer_was_used_before():
    tokenizer = tiny_tokenizer()
    before = make_adapter(tokenizer).fingerprint
    tokenizer(["a", "longer text"], padding=True, truncation=True, max_length=3)
    assert make_adapter(tokenizer).fingerprint == before


def test_a_sliding_window_shorter_than_the_rows_is_refused():
    model = tiny_model()
    model.config.text_config.sliding_window = 32
    with pytest.raises(ModelError, match="use at most 32"):
        make_adapter(tiny_tokenizer(), model)
    make_adapter(tiny_tokenizer(), model, max_tokens=32)


def test_pictures_of_different_sizes_are_a_model_error():
    pixels = [np.zeros((3, 28, width), np.float32) for width in (28, 42)]
    with pytest.raises(ModelError, match="different sizes"):
        tiny_adapter().features(pixels)
