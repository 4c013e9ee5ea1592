"""Images of training steps: decoded ahead, and through a frozen tower once."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from vsel_platform.models.batching import BatchLimits
from vsel_platform.models.image_features import TowerFeatures
from vsel_platform.models.images import ContentFailure, ImageInput, ImageProvider, Preprocessed, attempt_image
from vsel_platform.models.llava_forward import LlavaForward
from vsel_platform.models.vlm import ShownImage

if TYPE_CHECKING:
    import torch

    from vsel_platform.models.family_adapter import FamilyAdapter

    Adapter = LlavaForward | FamilyAdapter

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

    def __init__(self, model: "Adapter", images: ImageProvider, *, trained: bool, keep_bytes: int) -> None:
        self._model = model
        self._images = images
        self._trained = trained
        self._tower = TowerFeatures(
            model,
            self._preprocessed,
            limits=BatchLimits(),
            decode_workers=DECODE_WORKERS,
            keep_bytes=0 if trained else keep_bytes,
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
        features: dict[str, torch.Tensor] = {}
        pixels: dict[str, Preprocessed] = {}
        if self._trained:
            self.ahead(wanted)
            found = {i: attempt_image(i, partial(self._preprocessed, i)) for i in wanted}
            failed = {i: own for i, own in found.items() if isinstance(own, ContentFailure)}
            pixels = {i: own for i, own in found.items() if not isinstance(own, ContentFailure)}
            self._measure([i for i in pixels if i not in self._shown])
        else:
            features, failed = self._tower.get(wanted)
            self._describe(features)
        self._pending.clear()
        return LoadedImages(features, pixels, {i: self._shown[i] for i in wanted if i not in failed}, failed)

    def _describe(self, features: "Mapping[str, torch.Tensor]") -> None:
        for image_id, feature in features.items():
            self._shown[image_id] = ShownImage(len(feature), self._tower.layouts.get(image_id, ()))

    def _measure(self, image_ids: Sequence[str]) -> None:
        """How many tokens images have, which with most models only the tower knows; without dropout, whose random
        numbers a resumed training would draw in another order."""
        import torch

        if isinstance(self._model, LlavaForward):
            self._shown.update({i: ShownImage(self._model.image_tokens) for i in image_ids})
            return
        module = self._model.model
        before = module.training
        module.eval()
        try:
            with torch.no_grad():
                self._describe(self._tower.get(image_ids)[0])
        finally:
            module.train(before)

    def _preprocessed(self, image_id: str) -> Preprocessed:
        pending = self._pending.get(image_id)
        return pending.result() if pending is not None else self._load(image_id)

    def _load(self, image_id: str) -> Preprocessed:
        image = self._images(image_id)
        return image if isinstance(image, np.ndarray | ImageInput) else self._model.preprocess(image)

    def close(self) -> None:
        """Forget what is still being loaded."""
        self._pool.shutdown(wait=False, cancel_futures=True)
