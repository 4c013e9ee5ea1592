"""Operations from a configuration against those that torch counts in a forward pass."""

import pytest
import torch
from tiny_families import picture, tiny_family
from tiny_llava import tiny_model
from torch.utils.flop_counter import FlopCounterMode

from vsel_platform.models.costs import decoder_of, tower_of
from vsel_platform.models.families import FAMILIES

TOKENS = 40


def counted(run):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return counter.get_total_flops()


def eager(model):
    """Attention by plain products, which the counter sees on every device."""
    model.set_attn_implementation("eager")
    return model


@pytest.mark.parametrize("family", ["llava", *FAMILIES])
def test_decoder_operations_are_those_that_torch_counts(family):
    model = eager(tiny_model(layers=3) if family == "llava" else tiny_family(family).model)
    sizes = decoder_of(model.config)
    decoder = model.get_decoder()
    states = torch.randn(1, TOKENS, sizes.width)
    found = counted(lambda: decoder(inputs_embeds=states, use_cache=False))
    assert sizes.flops(TOKENS, sizes.layers) == pytest.approx(found, rel=0.02)  # the rest is rotary positions
    logits = counted(lambda: model.lm_head(states[:, :7]))
    assert sizes.logit_flops(7) == pytest.approx(logits)


def test_one_layer_of_three_costs_a_third_and_cached_tokens_attend_to_all_before():
    sizes = decoder_of(tiny_model(layers=3).config)
    assert 3 * sizes.flops(TOKENS, 1) == pytest.approx(sizes.flops(TOKENS, 3))
    assert sizes.flops(1, 1, seen=100) > sizes.flops(1, 1, seen=1)


def test_a_tower_of_one_picture_size():
    model = eager(tiny_model())
    tower = tower_of(model.config, 500, 300)
    assert tower.tokens == 4

    def run():
        states = model.model.vision_tower(torch.zeros(1, 3, 28, 28), output_hidden_states=True).hidden_states[-2]
        model.model.multi_modal_projector(states[:, 1:])

    assert tower.flops == pytest.approx(counted(run), rel=0.1)


@pytest.mark.parametrize("family", FAMILIES)
def test_towers_of_other_families_are_estimated_from_the_picture(family):
    tiny = tiny_family(family)
    eager(tiny.model)
    adapter = tiny.adapter()
    image = picture("p").resize((84, 84))
    prepared = adapter.preprocess(image)
    tower = tower_of(tiny.model.config, image.height, image.width)
    found = counted(lambda: adapter.features([prepared]))
    tokens = len(adapter.row_features(adapter.features([prepared]))[0])
    assert 0.5 < tower.tokens / tokens < 2
    assert 0.4 < tower.flops / found < 2.5


def test_any_other_tower_is_counted_without_its_weights():
    from vsel_platform.config import VlmSettings
    from vsel_platform.models.load import load_config

    tower = tower_of(load_config(VlmSettings(model="embedded:demo")), 128, 128)
    assert tower.tokens == 16
    # EfficientNet-Lite0 has 0.407 G multiplications at 224 x 224 pixels.
    assert tower.flops == pytest.approx(2 * 0.407e9 * (128 / 224) ** 2, rel=0.15)
