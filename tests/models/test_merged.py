"""A model with adapters merged into it, written and loaded again."""

import numpy as np
import pytest
import transformers
from random_adapters import save_random_adapter
from tiny_llava import conversation, picture, save_tiny

from vsel_platform.config import VlmSettings
from vsel_platform.config_training import LoraSettings, PrototypeSettings, SelfQuestioningSettings
from vsel_platform.errors import ModelError
from vsel_platform.models.dedicated_token import VIRTUAL_USER
from vsel_platform.models.load import load_vlm
from vsel_platform.models.lora_adapter import keep_base
from vsel_platform.models.merged import save_merged
from vsel_platform.signals.losses import LossRow, answer_losses

PLAIN = LoraSettings(rank=2, alpha=2, dropout=0.0)
ROWS = [
    LossRow("a", conversation("<image>\nWhat colour is the bus?", "It is red."), ["p"]),
    LossRow("b", conversation("What is a bus?", "A car.")),
]


def losses(model):
    (batch,) = answer_losses(model, ROWS, picture)
    return np.array([value.loss_mean for value in batch.values])


@pytest.fixture
def base(tmp_path):
    """Settings of a tiny model in a directory."""
    return VlmSettings(model=str(save_tiny(tmp_path / "base")), dtype="float32", max_tokens=256)


def adapter(base, directory, settings=PLAIN, seed=0):
    save_random_adapter(load_vlm(base, "cpu"), directory, settings, seed)
    return str(directory)


def test_the_written_model_is_the_model_with_the_adapter(base, tmp_path):
    trained = adapter(base, tmp_path / "adapter")
    (tmp_path / "merged").mkdir()
    save_merged(base, trained, tmp_path / "merged")
    written = base.model_copy(update={"model": str(tmp_path / "merged")})
    expected = losses(load_vlm(base, "cpu", adapter_dir=trained))
    np.testing.assert_allclose(losses(load_vlm(written, "cpu")), expected, rtol=0, atol=1e-6)
    assert np.abs(losses(load_vlm(base, "cpu")) - expected).max() > 1e-3
    # Other programs load it as what it is.
    loaded = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "merged")
    assert type(loaded).__name__ == "LlavaForConditionalGeneration"
    assert (tmp_path / "merged" / "preprocessor_config.json").is_file()


def test_an_adapter_on_top_of_that_of_the_settings_is_whole(base, tmp_path):
    first = adapter(base, tmp_path / "first")
    above = base.model_copy(update={"adapter": first})
    np.testing.assert_array_equal(losses(load_vlm(above, "cpu")), losses(load_vlm(base, "cpu", adapter_dir=first)))
    second = adapter(above, tmp_path / "second", seed=1)
    keep_base(tmp_path / "second", tmp_path / "first")
    # Wherever it is carried to, also to a project that does not know of the first one.
    np.testing.assert_array_equal(
        losses(load_vlm(above, "cpu", adapter_dir=second)), losses(load_vlm(base, "cpu", adapter_dir=second))
    )
    (tmp_path / "merged").mkdir()
    save_merged(above, second, tmp_path / "merged")
    expected = losses(load_vlm(above, "cpu", adapter_dir=second))
    written = losses(load_vlm(base.model_copy(update={"model": str(tmp_path / "merged")}), "cpu"))
    np.testing.assert_allclose(written, expected, rtol=0, atol=1e-6)
    names = {load_vlm(s, "cpu", adapter_dir=a).fingerprint for s in (base, above) for a in (None, second)}
    assert len(names) == 3


def test_prototypes_of_a_pre_training_are_gone_on_with(base, tmp_path):
    settings = PLAIN.model_copy(update={"prototypes": PrototypeSettings(prototypes=2)})
    first = adapter(base, tmp_path / "first", settings)
    above = base.model_copy(update={"adapter": first})
    trained = adapter(above, tmp_path / "second", settings, seed=1)
    keep_base(tmp_path / "second", tmp_path / "first")
    assert load_vlm(above, "cpu", adapter_dir=trained).fingerprint != load_vlm(above, "cpu").fingerprint
    with pytest.raises(ModelError, match="prototypes have no place"):
        save_merged(base, first, tmp_path)


def test_an_added_token_is_written_with_the_tokenizer(base, tmp_path):
    settings = PLAIN.model_copy(update={"self_questioning": SelfQuestioningSettings(dedicated_token=True)})
    trained = adapter(base, tmp_path / "adapter", settings)
    (tmp_path / "merged").mkdir()
    save_merged(base, trained, tmp_path / "merged")
    assert VIRTUAL_USER in transformers.AutoTokenizer.from_pretrained(tmp_path / "merged").get_vocab()


def test_embedded_models_are_not_written(tmp_path):
    with pytest.raises(ModelError, match="a tower of its own"):
        save_merged(VlmSettings(model="embedded:demo"), "nowhere", tmp_path)
