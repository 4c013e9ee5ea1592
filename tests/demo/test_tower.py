import pytest
import torch
from transformers import AutoConfig, AutoModel

from vsel_platform.demo.efficientnet import load_backbone
from vsel_platform.demo.tower import EffLiteConfig, EffLiteModel, register_tower


@pytest.fixture(scope="module")
def tower() -> EffLiteModel:
    return EffLiteModel(EffLiteConfig()).eval()


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))


def test_a_picture_becomes_sixteen_tokens(tower: EffLiteModel, pixels: torch.Tensor) -> None:
    with torch.no_grad():
        output = tower(pixels, output_hidden_states=True)
    assert output.last_hidden_state.shape == (2, 16, 768)
    assert torch.equal(output.hidden_states[-1], output.last_hidden_state)


def test_a_token_joins_the_channels_of_its_cell(tower: EffLiteModel, pixels: torch.Tensor) -> None:
    with torch.no_grad():
        tokens = tower(pixels).last_hidden_state
        middle, last = load_backbone()(pixels)
    row, column = 2, 1
    token = tokens[0, 4 * row + column]
    torch.testing.assert_close(token[:320], last[0, :, row, column], atol=1e-4, rtol=1e-4)
    cells = middle[0, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].reshape(-1)
    torch.testing.assert_close(token[320:], cells, atol=1e-4, rtol=1e-4)


def test_channels_are_shifted_and_scaled(pixels: torch.Tensor) -> None:
    plain, standardised = EffLiteModel(EffLiteConfig()).eval(), EffLiteModel(EffLiteConfig()).eval()
    standardised.token_mean.fill_(2.0)
    standardised.token_std.fill_(4.0)
    with torch.no_grad():
        expected = (plain(pixels).last_hidden_state - 2) / 4
        torch.testing.assert_close(standardised(pixels).last_hidden_state, expected)


def test_transformers_knows_the_tower_and_keeps_its_weights() -> None:
    register_tower()
    register_tower()
    config = AutoConfig.for_model("efficientnet_lite0_tower")
    model = AutoModel.from_config(config)
    assert isinstance(model, EffLiteModel)
    published = load_backbone().state_dict()
    found = model.backbone.state_dict()
    assert published.keys() == found.keys()
    assert all(torch.equal(published[name], found[name]) for name in published)
