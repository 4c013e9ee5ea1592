"""Prototypes as a projector, and before a pretrained one."""

import copy

import pytest
import torch
from tiny_families import tiny_family
from tiny_llava import picture, tiny_adapter, tiny_model
from token_images import correlated_tokens

from vsel_platform.config_training import PrototypeSettings
from vsel_platform.errors import ModelError
from vsel_platform.models.prototype_extractor import PrototypeOptions, released_options
from vsel_platform.models.prototypes import (
    PrototypeProjector,
    PrototypeResidual,
    input_width,
    prototype_options,
    released_state,
    with_prototypes,
)

TWO = PrototypeSettings(prototypes=2)


def projector():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 12), torch.nn.GELU(), torch.nn.Linear(12, 12))


def test_a_projector_loads_a_released_state_without_the_layer_that_is_never_used():
    projector = PrototypeProjector(8, 10, released_options(4))
    state = {name: torch.randn_like(tensor) for name, tensor in projector.state_dict().items()}
    projector.load_state_dict(released_state(state | {"ln_1.weight": torch.ones(8), "ln_1.bias": torch.zeros(8)}))
    assert set(state) == {
        "sim_alpha", "sim_beta", *(f"{layer}.{part}" for layer in ("c", "v", "f", "mlp.0", "mlp.2")
                                   for part in ("weight", "bias")),
    }  # fmt: skip
    assert projector(torch.randn(2, 9, 8)).shape == (2, 9, 10)


def test_at_first_the_projector_gives_what_it_gave_and_training_lets_the_prototypes_in():
    inner = projector()
    before = copy.deepcopy(inner)
    residual = PrototypeResidual(inner, 8, PrototypeOptions(4))
    x = correlated_tokens(2, 16, 8)
    assert torch.equal(residual(x), before(x))
    optimizer = torch.optim.SGD(residual.parameters(), lr=0.05)
    for step in range(2):
        optimizer.zero_grad()
        residual(x).square().mean().backward()
        assert residual.gate.weight.grad.abs().max() > 0
        moved = [p.grad.abs().max() > 0 for p in (residual.extractor.f.weight, residual.extractor.c.weight)]
        assert moved == [step > 0] * 2
        optimizer.step()
    assert not torch.allclose(residual(x), residual.projector(x))


def test_flat_tokens_are_told_apart_by_their_numbers():
    residual = PrototypeResidual(projector(), 8, PrototypeOptions(4))
    torch.nn.init.ones_(residual.gate.weight)
    first, second = correlated_tokens(1, 16, 8)[0], correlated_tokens(1, 9, 8, seed=1)[0]
    with residual.images([16, 9]):
        found = residual(torch.cat([first, second]))
    torch.testing.assert_close(found, torch.cat([residual(first[None])[0], residual(second[None])[0]]))
    for lengths in ([16], None):
        with pytest.raises(ModelError, match="number of tokens of every image"):
            if lengths is None:
                residual(first)
            else:
                with residual.images(lengths):
                    residual(second)


def test_a_model_gives_what_it_gave_and_its_own_weights_are_still_the_first():
    model = tiny_model()
    adapter = tiny_adapter(model=model)
    features = torch.stack(list(adapter.features([adapter.preprocess(picture(name)) for name in "ab"])))
    before = adapter.project(features)
    own = model.model.multi_modal_projector
    residual = model.model.multi_modal_projector = with_prototypes(own, TWO)
    assert torch.equal(adapter.project(features), before)
    assert next(residual.parameters()) is next(own.parameters())
    with pytest.raises(ModelError, match="already"):
        with_prototypes(residual, TWO)


def test_a_half_precision_model_keeps_its_dtype_and_the_new_weights_are_float32():
    residual = with_prototypes(tiny_model().bfloat16().model.multi_modal_projector, TWO)
    assert residual(torch.randn(1, 4, 16).bfloat16()).dtype == torch.bfloat16
    assert residual.gate.weight.dtype == torch.float32


PROJECTORS = {
    "llava_next": "model.multi_modal_projector",
    "llava_onevision": "model.multi_modal_projector",
    "qwen2_vl": "model.visual.merger",
    "qwen2_5_vl": "model.visual.merger",
    "qwen3_vl": "model.visual.merger",
    "idefics3": "model.connector",
    "smolvlm": "model.connector",
}


@pytest.mark.parametrize("model_type", PROJECTORS)
def test_every_family_gives_what_it_gave_at_first(model_type):
    family = tiny_family(model_type)
    adapter = family.adapter()
    image = adapter.preprocess(picture("a"))
    before = adapter.features([image])[0]
    parent, _, name = PROJECTORS[model_type].rpartition(".")
    residual = with_prototypes(family.model.get_submodule(PROJECTORS[model_type]), TWO)
    setattr(family.model.get_submodule(parent), name, residual)
    counts = (
        [int(grid.prod()) for grid in [image.arrays["image_grid_thw"]] if grid.size] if "qwen" in model_type else []
    )
    with residual.images(counts):
        assert torch.equal(adapter.features([image])[0], before)


def test_a_projector_of_unknown_form_is_refused():
    assert input_width(projector()) == 8
    with pytest.raises(ModelError, match="width of what goes into a Conv2d"):
        input_width(torch.nn.Conv2d(3, 4, 2))


def test_settings_name_the_form_and_the_released_keys_bring_all_of_the_released_form():
    default = prototype_options(PrototypeSettings(prototypes=7, iterations=3, read_out="soft"))
    assert default == PrototypeOptions(7, 3)
    released = prototype_options(PrototypeSettings(prototypes=7, key_norm="token", read_out="hard"))
    assert released == released_options(7)
