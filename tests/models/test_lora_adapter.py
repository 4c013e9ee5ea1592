"""An adapter's directory merged into its model."""

import shutil

import pytest
import torch
from random_adapters import save_random_adapter
from tiny_llava import tiny_adapter, tiny_model, tiny_tokenizer

from vsel_platform.config_training import LoraSettings, PrototypeSettings, SelfQuestioningSettings
from vsel_platform.errors import ModelError, UnsafeCheckpointError
from vsel_platform.models.dedicated_token import VIRTUAL_USER
from vsel_platform.models.lora_adapter import (
    BASE_ADAPTER,
    EXTRAS_FILE,
    AdapterExtras,
    adapter_extras,
    add_prototypes,
    keep_base,
    merge_adapter,
    write_extras,
)
from vsel_platform.models.prototypes import PrototypeResidual

PROJECTOR = "model.multi_modal_projector"
Q_PROJ = "model.language_model.layers.0.self_attn.q_proj"
PLAIN = LoraSettings(rank=2, alpha=2, dropout=0.0)
PROTOTYPES = PLAIN.model_copy(update={"prototypes": PrototypeSettings(prototypes=2)})
TOKEN = PLAIN.model_copy(update={"self_questioning": SelfQuestioningSettings(dedicated_token=True)})


def saved(directory, settings=PLAIN, seed=0):
    """An adapter with random weights, and the model that it was made on."""
    return save_random_adapter(tiny_adapter(), directory, settings, seed)


def weight(model, path=Q_PROJ):
    return model.get_submodule(path).weight.detach().clone()


def test_the_weights_are_added(tmp_path):
    expected = weight(saved(tmp_path / "a").merge_and_unload())
    merged, _ = merge_adapter(tiny_model(), tiny_tokenizer(), PROJECTOR, tmp_path / "a")
    torch.testing.assert_close(weight(merged), expected)
    assert not torch.allclose(weight(merged), weight(tiny_model()))
    assert not (tmp_path / "a" / EXTRAS_FILE).exists()


def test_an_adapter_on_top_of_another_is_merged_after_it(tmp_path):
    for i, name in enumerate(("below", "above")):
        saved(tmp_path / name, seed=i)
    own = {
        name: merge_adapter(tiny_model(), tiny_tokenizer(), PROJECTOR, tmp_path / name) for name in ("below", "above")
    }
    (tmp_path / "below").rename(tmp_path / "above" / BASE_ADAPTER)
    both, digest = merge_adapter(tiny_model(), tiny_tokenizer(), PROJECTOR, tmp_path / "above")
    base = weight(tiny_model())
    torch.testing.assert_close(weight(both) - base, sum(weight(model) - base for model, _ in own.values()))
    assert digest not in {own_digest for _, own_digest in own.values()}


def test_an_adapter_without_the_one_below_it_is_refused(tmp_path):
    for i, name in enumerate(("below", "above")):
        saved(tmp_path / name, seed=i)
    keep_base(tmp_path / "above", tmp_path / "below")
    whole, _ = merge_adapter(tiny_model(), tiny_tokenizer(), PROJECTOR, tmp_path / "above")
    assert (tmp_path / "below").is_dir()
    assert not torch.equal(weight(whole), weight(tiny_model()))
    shutil.rmtree(tmp_path / "above" / BASE_ADAPTER)
    with pytest.raises(ModelError, match="base_adapter/ is missing, on top of which it was trained"):
        merge_adapter(tiny_model(), tiny_tokenizer(), PROJECTOR, tmp_path / "above")


def test_prototypes_are_put_where_they_were(tmp_path):
    wrapped = saved(tmp_path / "a", PROTOTYPES)
    merged, _ = merge_adapter(tiny_model(), tiny_tokenizer(), PROJECTOR, tmp_path / "a")
    residual = merged.get_submodule(PROJECTOR)
    assert isinstance(residual, PrototypeResidual)
    path = f"{PROJECTOR}.extractor.c"
    torch.testing.assert_close(weight(merged, path), weight(wrapped.merge_and_unload(), path))
    # Trained further, what is there stays.
    add_prototypes(merged, PROJECTOR, PrototypeSettings(prototypes=2))
    assert merged.get_submodule(PROJECTOR) is residual
    add_prototypes(merged, PROJECTOR, PrototypeSettings())
    assert merged.get_submodule(PROJECTOR) is residual
    with pytest.raises(ModelError, match=r"has prototypes already \(2, iterations 2, .*\); say the same"):
        add_prototypes(merged, PROJECTOR, PrototypeSettings(prototypes=4))


def test_the_virtual_users_token_is_added_with_its_embedding(tmp_path):
    wrapped, tokenizer = saved(tmp_path / "a", TOKEN), tiny_tokenizer()
    merged, _ = merge_adapter(tiny_model(), tokenizer, PROJECTOR, tmp_path / "a")
    number = tokenizer.convert_tokens_to_ids(VIRTUAL_USER)
    rows = [model.get_input_embeddings().weight[number] for model in (merged, wrapped.merge_and_unload())]
    torch.testing.assert_close(*rows)
    words = tiny_tokenizer()("VUSER:", add_special_tokens=False)["input_ids"]
    assert not torch.allclose(rows[0], tiny_model().get_input_embeddings().weight[words].mean(0))


@pytest.mark.parametrize("settings", [PROTOTYPES, TOKEN])
def test_what_an_adapter_needs_is_written_beside_it(tmp_path, settings):
    saved(tmp_path / "a", settings)
    extras = adapter_extras(tmp_path / "a")
    assert extras.prototypes == settings.prototypes
    assert extras.dedicated_token == settings.self_questioning.dedicated_token


def test_an_adapter_that_needs_nothing_says_nothing(tmp_path):
    write_extras(tmp_path, AdapterExtras())
    assert list(tmp_path.iterdir()) == []
    assert adapter_extras(tmp_path) == AdapterExtras()


def test_unknown_needs_are_refused(tmp_path):
    saved(tmp_path / "a")
    (tmp_path / "a" / EXTRAS_FILE).write_text('{"dedicated_token": false, "unheard_of": 1}')
    with pytest.raises(ModelError, match=r"(?s)does not fit the model.*unheard_of"):
        merge_adapter(tiny_model(), tiny_tokenizer(), PROJECTOR, tmp_path / "a")


def test_a_directory_that_is_none_or_holds_pickles_is_refused(tmp_path):
    with pytest.raises(ModelError, match="no directory"):
        merge_adapter(tiny_model(), tiny_tokenizer(), PROJECTOR, tmp_path / "none")
    saved(tmp_path / "a")
    (tmp_path / "a" / "adapter_model.safetensors").rename(tmp_path / "a" / "adapter_model.bin")
    with pytest.raises(UnsafeCheckpointError):
        merge_adapter(tiny_model(), tiny_tokenizer(), PROJECTOR, tmp_path / "a")
