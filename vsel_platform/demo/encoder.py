"""EfficientNet-Lite0 as an image encoder: pooled features of its last block."""

from typing import TYPE_CHECKING

import numpy as np
import torch

from vsel_platform.config import EncoderSettings
from vsel_platform.demo.efficientnet import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    INPUT_PX,
    LAST_CHANNELS,
    Backbone,
    load_backbone,
    published_weights_hash,
    run_in_chunks,
    to_pixels,
)
from vsel_platform.identity import fingerprint
from vsel_platform.models.devices import torch_dtype

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

CODE_VERSION = 1


class EfficientNetLite0Encoder:
    """Pictures to 320 numbers: the last block's map, averaged over positions, not normalised."""

    name = "efficientnet_lite0"
    dimension = LAST_CHANNELS

    def __init__(self, backbone: Backbone, *, fingerprint: str, device: str) -> None:
        self.fingerprint = fingerprint
        self.device = device
        self._backbone = backbone

    def preprocess(self, image: "Image.Image") -> "NDArray[np.float32]":
        """Pixels float32 [3, 128, 128] of one picture."""
        return to_pixels(image)

    def encode(self, pixels: "NDArray[np.float32]") -> "NDArray[np.float32]":
        """Vectors float32 [n, 320] of pixels float32 [n, 3, 128, 128]."""
        weight = next(self._backbone.parameters())
        with torch.inference_mode():
            batch = torch.from_numpy(np.ascontiguousarray(pixels)).to(weight.device, weight.dtype)
            _, last = run_in_chunks(self._backbone, batch)
            return np.asarray(last.float().mean(dim=(2, 3)).cpu().numpy(), dtype=np.float32)


def load_efficientnet_lite0(settings: EncoderSettings, device: str) -> EfficientNetLite0Encoder:
    """The encoder on `device`, in the number format of the settings (`model` and `revision` do not apply).

    Raises MissingPackageError with the pip command if the weights' package is not installed.
    """
    backbone = load_backbone().to(device=device, dtype=torch_dtype(settings.dtype))
    content = fingerprint(
        encoder=EfficientNetLite0Encoder.name,
        code=CODE_VERSION,
        weights=published_weights_hash(),
        input_px=INPUT_PX,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        feature="last block, mean over positions",
        dtype=settings.dtype,
    )
    return EfficientNetLite0Encoder(backbone, fingerprint=content, device=device)
