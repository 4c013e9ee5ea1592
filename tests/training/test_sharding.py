"""What stays whole of a model that is shared out."""

import pytest
import torch
from tiny_families import picture as family_picture
from tiny_families import tiny_family
from tiny_llava import picture, tiny_adapter

from vsel_platform.errors import ConfigError
from vsel_platform.training.sharding import kept_whole


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


def test_all_is_as_before_after_an_error():
    model = tiny_adapter()
    with pytest.raises(ZeroDivisionError), kept_whole(model):
        raise ZeroDivisionError
    assert any("vision_tower" in name for name in names(model))
