"""What a loss depends on."""

import pytest
import torch

from vsel_platform.errors import ModelError
from vsel_platform.training.gradients import reached, require_gradients


def model():
    torch.manual_seed(0)
    layers = torch.nn.ModuleDict({name: torch.nn.Linear(2, 2) for name in ("used", "frozen", "unused")})
    layers["frozen"].requires_grad_(False)
    return layers


def names(layers, loss):
    found = {id(tensor) for tensor in reached(loss)}
    return {name for name, parameter in layers.named_parameters() if id(parameter) in found}


def test_what_is_in_the_graph_is_reached_with_a_gradient_of_0_too():
    layers = model()
    states = layers["frozen"](layers["used"](torch.ones(1, 2)))
    assert names(layers, (states * 0).sum() + states.sum()) == {"used.weight", "used.bias"}


def test_what_is_computed_again_in_the_backward_pass_is_reached():
    layers = model()
    states = torch.utils.checkpoint.checkpoint(layers["used"], torch.ones(1, 2), use_reentrant=False)
    assert names(layers, states.sum()) == {"used.weight", "used.bias"}


def test_a_loss_without_a_graph_reaches_nothing():
    layers = model()
    assert names(layers, layers["frozen"](torch.ones(1, 2)).sum()) == set()


def test_a_tensor_that_is_trained_and_not_reached_is_named():
    layers = model()
    require_gradients(layers, {name for name, p in layers.named_parameters() if p.requires_grad})
    with pytest.raises(ModelError, match=r"2 tensors .* get no gradient: unused\.weight, unused\.bias\. Narrow"):
        require_gradients(layers, {"used.weight", "used.bias"})
