"""Whether prototypes stay apart: the default does, the released form does not."""

import pytest
import torch
from token_images import correlated_tokens

from vsel_platform.models.prototype_extractor import PrototypeExtractor, PrototypeOptions, released_options
from vsel_platform.models.prototype_usage import prototype_usage
from vsel_platform.models.prototypes import PrototypeProjector

N, COUNT, WIDTH = 64, 576, 64


def trained(options, common, steps=20):
    """A projector after a few steps on correlated tokens, towards a fixed image of them."""
    torch.manual_seed(0)
    x = correlated_tokens(2, COUNT, WIDTH, common=common, seed=1)
    module = PrototypeProjector(WIDTH, WIDTH, options)
    target = torch.tanh(x @ torch.randn(WIDTH, WIDTH) / WIDTH**0.5)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        (module(x) - target).square().mean().backward()
        optimizer.step()
    return module, x


def fresh(options, common):
    torch.manual_seed(0)
    return PrototypeExtractor(WIDTH, options), correlated_tokens(2, COUNT, WIDTH, common=common, seed=1)


COMMON = pytest.mark.parametrize("common", [0.0, 3.0, 20.0])
STATES = pytest.mark.parametrize("state", [fresh, trained])


@COMMON
@STATES
def test_default_prototypes_stay_apart_when_tokens_have_much_in_common_and_released_ones_do_not(common, state):
    default = prototype_usage(*state(PrototypeOptions(N), common))
    assert default.spread > 0.4
    assert default.used > 0.9 * N
    released = prototype_usage(*state(released_options(N), common))
    assert released.spread < 0.01
    assert released.pairwise_cosine > 0.99
    assert released.used < 0.7 * N


def test_learned_prototypes_stay_apart_too():
    usage = prototype_usage(*trained(PrototypeOptions(N, init="random"), 3.0))
    assert usage.spread > 0.3
    assert usage.used > 0.5 * N


def test_usage_of_prototypes_that_are_all_the_same():
    x = torch.ones(2, 9, 8)
    usage = prototype_usage(PrototypeExtractor(8, PrototypeOptions(3)), x)
    assert usage.pairwise_cosine == pytest.approx(1)
    assert usage.used == 1
    assert usage.entropy == 0
    assert set(usage.to_dict()) == {"used", "entropy", "pairwise_cosine", "token_cosine", "spread"}


def test_usage_of_prototypes_that_each_have_their_tokens():
    x = torch.eye(4).repeat_interleave(3, 0)[None]
    usage = prototype_usage(PrototypeExtractor(4, PrototypeOptions(4, temperature=0.01)), x)
    assert usage.used == 4
    assert usage.entropy == pytest.approx(torch.tensor(4.0).log().item())
    assert usage.pairwise_cosine == pytest.approx(0, abs=1e-3)
