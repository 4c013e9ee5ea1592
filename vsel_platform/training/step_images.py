"""Images of training steps: decoded ahead, and through a frozen tower once."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from vsel_platform.models.batching import BatchLimits
from vsel_platform.models.image_features import TowerFeatures
from vsel_platform.models.images import (
    ContentFailure,
    ImageInput,
    ImageProvider,
    Preprocessed,
    attempt_image,
)
from vsel_platform.models.vlm import ModelForward, ShownImage

if TYPE_CHECKING:
    import torch

DECODE_WORKERS = 2


@dataclass(frozen=True)
class LoadedImages:
    """Images of some rows, by id. features: of a frozen tower; pixels: for a tower that is trained. shown: what
    prompts have to know of them. failed: images that cannot be read."""

    features: "Mapping[str, torch.Tensor]"
    pixels: Mapping[str, Preprocessed]
    shown: Mapping[str, ShownImage]
    failed: Mapping[str, ContentFailure]


class StepImages:
    """Loads the images of one step while the model works on the step before it.

    A frozen tower's features are kept up to `keep_bytes`; where the tower is trained (`tower_gradients` of the model),
    its pictures are loaded at every step.
    """

    def __init__(self, model: ModelForward, images: ImageProvider, *, trained: bool, keep_bytes: int) -> None:
        self._model = model
        self._images = images
        self._trained = trained
        self._tower = TowerFeatures(
            model, self._preprocessed, limits=BatchLimits(), decode_workers=DECODE_WORKERS, keep_bytes=keep_bytes
        )
        self._pool = ThreadPoolExecutor(DECODE_WORKERS, thread_name_prefix="training-images")
        self._pending: dict[str, Future[Preprocessed]] = {}
        self._shown: dict[str, ShownImage] = {}

    def ahead(self, image_ids: Iterable[str]) -> None:
        """Begin to load images that will be asked for next."""
        for image_id in dict.fromkeys(image_ids):
            if image_id not in self._pending and (self._trained or not self._tower.keeps(image_id)):
                self._pending[image_id] = self._pool.submit(self._load, image_id)

    def load(self, image_ids: Sequence[str]) -> LoadedImages:
        """The images, each once; what was loaded ahead for other rows is forgotten."""
        wanted = list(dict.fromkeys(image_ids))
        pixels: dict[str, Preprocessed] = {}
        failed: dict[str, ContentFailure] = {}
        if self._trained:
            for image_id in wanted:
                found = attempt_image(image_id, partial(self._preprocessed, image_id))
                if isinstance(found, ContentFailure):
                    failed[image_id] = found
                else:
                    pixels[image_id] = found
            self._measure(pixels)
            features: Mapping[str, torch.Tensor] = {}
        else:
            features, failures = self._tower.get(wanted)
            failed.update(failures)
            for image_id, feature in features.items():
                self._shown[image_id] = ShownImage(len(feature), self._tower.layouts.get(image_id, ()))
        self._pending.clear()
        return LoadedImages(features, pixels, {i: self._shown[i] for i in wanted if i not in failed}, failed)

    def _measure(self, pixels: Mapping[str, Preprocessed]) -> None:
        """How many tokens new images have; only the tower knows."""
        import torch

        new = [i for i in pixels if i not in self._shown]
        with torch.no_grad():
            counts = [len(feature) for feature in self._model.features([pixels[i] for i in new])] if new else []
        for image_id, count in zip(new, counts, strict=True):
            own = pixels[image_id]
            self._shown[image_id] = ShownImage(count, own.layout if isinstance(own, ImageInput) else ())

    def _preprocessed(self, image_id: str) -> Preprocessed:
        pending = self._pending.get(image_id)
        return pending.result() if pending is not None else self._load(image_id)

    def _load(self, image_id: str) -> Preprocessed:
        image = self._images(image_id)
        return image if isinstance(image, np.ndarray | ImageInput) else self._model.preprocess(image)

    def close(self) -> None:
        """Forget what is still being loaded."""
        self._pool.shutdown(wait=False, cancel_futures=True)
