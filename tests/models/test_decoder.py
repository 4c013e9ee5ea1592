"""Decoders run to a depth."""

import numpy as np
import pytest
import torch

from vsel_platform.errors import ModelError
from vsel_platform.models.attention import AttentionRecorder
from vsel_platform.models.decoder import decoder_states, first_layers

IDS = torch.arange(18).reshape(2, 9) % 11
DEPTH = 4


def decoder(family="llama"):
    import transformers

    config_class, model_class = {
        "llama": (transformers.LlamaConfig, transformers.LlamaModel),
        "qwen2": (transformers.Qwen2Config, transformers.Qwen2Model),
    }[family]
    config = config_class(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=DEPTH,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.4,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return model_class(config).eval()


MODEL = decoder()


def counted(model, counts):
    """Hooks that count how often each layer runs."""
    return [
        layer.register_forward_hook(lambda *_, i=i: counts.__setitem__(i, counts.get(i, 0) + 1))
        for i, layer in enumerate(model.layers, start=1)
    ]


@pytest.fixture
def counts():
    found = {}
    handles = counted(MODEL, found)
    yield found
    for handle in handles:
        handle.remove()


def recorder(*layers):
    return AttentionRecorder(frozenset(layers), torch.tensor([[8], [3]]), torch.tensor([[0, 1], [2, -1]]))


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_states_are_those_of_the_whole_model_at_every_depth(family):
    model = decoder(family)
    with torch.inference_mode():
        expected = model(IDS, output_hidden_states=True).hidden_states
        for depth in range(1, DEPTH):
            states = decoder_states(model, {"input_ids": IDS}, layers=[depth])
            assert list(states) == [depth]
            np.testing.assert_allclose(states[depth], expected[depth], atol=1e-6)
        together = decoder_states(model, {"input_ids": IDS}, layers=range(1, DEPTH + 1))
    for depth in range(1, DEPTH):
        np.testing.assert_allclose(together[depth], expected[depth], atol=1e-6)
    # transformers normalises the states of the last layer.
    np.testing.assert_allclose(model.norm(together[DEPTH]).detach(), expected[DEPTH], atol=1e-5)


def test_embeddings_may_be_given_instead_of_tokens():
    with torch.inference_mode():
        embedded = decoder_states(MODEL, {"inputs_embeds": MODEL.embed_tokens(IDS)}, layers=[2])
        np.testing.assert_array_equal(embedded[2], decoder_states(MODEL, {"input_ids": IDS}, layers=[2])[2])


def test_deeper_layers_do_not_run(counts):
    with torch.inference_mode():
        decoder_states(MODEL, {"input_ids": IDS}, layers=[1])
        assert counts == {1: 1}
        decoder_states(MODEL, {"input_ids": IDS}, layers=[3, 1])
        assert counts == {1: 2, 2: 1, 3: 1}


def test_recorded_attention_decides_the_depth_too(counts):
    with torch.inference_mode():
        made = recorder(2)
        states = decoder_states(MODEL, {"input_ids": IDS}, layers=[1], recorder=made)
        assert counts == {1: 1, 2: 1, 3: 1}
        assert (list(states), list(made.mass)) == ([1], [2])
        counts.clear()
        alone = recorder(0)
        assert decoder_states(MODEL, {"input_ids": IDS}, layers=[], recorder=alone) == {}
        assert counts == {1: 1}
    assert alone.mass[0].shape == (2, 2)


def hooks(model):
    return [len(layer._forward_hooks) for layer in model.layers]


def test_the_model_is_whole_again_after_an_error():
    before, implementation = MODEL.layers, MODEL.config._attn_implementation
    with pytest.raises(ZeroDivisionError), first_layers(MODEL, 2):
        assert len(MODEL.layers) == 2
        raise ZeroDivisionError
    assert MODEL.layers is before
    with pytest.raises(TypeError):
        decoder_states(MODEL, {"input_ids": "no tokens"}, layers=[2], recorder=recorder(0))
    assert MODEL.layers is before
    assert len(MODEL.layers) == DEPTH
    assert hooks(MODEL) == [0] * DEPTH
    assert MODEL.config._attn_implementation == implementation


@pytest.mark.parametrize("layers", [[0], [DEPTH + 1], [1, 99], [-1], []])
def test_layers_that_are_not_there_are_refused_and_leave_no_trace(layers):
    with pytest.raises(ModelError, match=f"the model has 1 to {DEPTH}"):
        decoder_states(MODEL, {"input_ids": IDS}, layers=layers)
    assert hooks(MODEL) == [0] * DEPTH


def test_attention_of_a_layer_that_is_not_there_is_refused():
    with pytest.raises(ModelError, match=f"decoder layers 1, {DEPTH + 1} are asked for"):
        decoder_states(MODEL, {"input_ids": IDS}, layers=[1], recorder=recorder(DEPTH))
