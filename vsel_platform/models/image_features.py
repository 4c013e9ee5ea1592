"""Vision tower features of images, once per distinct image."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vsel_platform.models.batching import BatchLimits, automatic_batch_size, run_with_oom_ladder
from vsel_platform.models.images import ContentFailure, ImageInput, ImageProvider, Preprocessed, decode_ahead
from vsel_platform.models.vlm import ModelForward

if TYPE_CHECKING:
    import torch

ACTIVATIONS_PER_PIXEL_BYTE = 40
"""Memory that a vision model needs per image at its peak, in multiples of the image's float32 pixels. Measured on a
CPU: 29 for DINOv2-base at 224 pixels, 39 for CLIP-L/14 at 336; the out-of-memory ladder corrects it for others."""


class TowerFeatures:
    """Features of a frozen vision tower by image id.

    `images(image_id)` gives a picture, or its preprocessed form if the caller has it. `layouts` has the layout of
    every image asked for that has one (`models.images.ImageInput`). Features are kept in main memory up to
    `keep_bytes`, first come, first kept (training passes over all images again and again, where any other order would
    keep nothing); with `keep_bytes=0` they stay on the device.
    """

    def __init__(
        self,
        model: ModelForward,
        images: ImageProvider,
        *,
        limits: BatchLimits,
        decode_workers: int = 2,
        keep_bytes: int = 0,
    ) -> None:
        self._model = model
        self._images = images
        self._limits = limits
        self._decode_workers = decode_workers
        self._keep_bytes = keep_bytes
        self._kept: dict[str, torch.Tensor] = {}
        self._kept_bytes = 0
        self._size = 0
        self.n_computed = 0
        self.layouts: dict[str, tuple[int, ...]] = {}

    def get(self, image_ids: Sequence[str]) -> "tuple[dict[str, torch.Tensor], dict[str, ContentFailure]]":
        """Features [image tokens, tower width] and failures of images, by id; repeated ids cost nothing."""
        wanted = list(dict.fromkeys(image_ids))
        found = {i: self._kept[i] for i in wanted if i in self._kept}
        failures: dict[str, ContentFailure] = {}
        missing = [i for i in wanted if i not in found]
        batch: list[tuple[str, Preprocessed]] = []
        loaders = ((i, lambda image_id=i: self._pixels(image_id)) for i in missing)
        for image_id, pixels in decode_ahead(loaders, workers=self._decode_workers):
            if isinstance(pixels, ContentFailure):
                failures[image_id] = pixels
                continue
            if isinstance(pixels, ImageInput):
                self.layouts[image_id] = pixels.layout
            batch.append((image_id, pixels))
            if len(batch) >= self._batch_size(pixels):
                found.update(self._compute(batch))
                batch = []
        found.update(self._compute(batch))
        return found, failures

    def keeps(self, image_id: str) -> bool:
        """Whether the features of an image are kept, so that nobody has to load it again."""
        return image_id in self._kept

    def _pixels(self, image_id: str) -> Preprocessed:
        image = self._images(image_id)
        return image if isinstance(image, np.ndarray | ImageInput) else self._model.preprocess(image)

    def _key(self) -> tuple[str, str, str]:
        return (self._model.fingerprint, self._model.device, "images")

    def _batch_size(self, pixels: Preprocessed) -> int:
        if not self._size:
            self._size = automatic_batch_size(self._model.device, pixels.nbytes * ACTIVATIONS_PER_PIXEL_BYTE)
        return self._limits.limit(self._key(), self._size)

    def _compute(self, batch: list[tuple[str, Preprocessed]]) -> "dict[str, torch.Tensor]":
        found: dict[str, torch.Tensor] = {}
        if not batch:
            return found
        for part, features in run_with_oom_ladder(
            batch,
            self._run_tower,
            key=self._key(),
            limits=self._limits,
            size_of=len,
            name_of=lambda item: f"image {item[0]}",
        ):
            home = [feature.cpu() for feature in features] if self._keep_bytes else features
            found.update(zip((image_id for image_id, _ in part), home, strict=True))
        self.n_computed += len(found)
        for image_id, feature in found.items():
            self._keep(image_id, feature)
        return found

    def _run_tower(self, part: Sequence[tuple[str, Preprocessed]]) -> "Sequence[torch.Tensor]":
        return self._model.features([pixels for _, pixels in part])

    def _keep(self, image_id: str, feature: "torch.Tensor") -> None:
        size = feature.numel() * feature.element_size()
        if self._kept_bytes + size <= self._keep_bytes:
            # A copy: a view would keep the whole batch alive.
            self._kept[image_id] = feature.clone()
            self._kept_bytes += size
