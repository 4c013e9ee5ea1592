"""Vision tower features, once per image."""

import numpy as np
import pytest
import torch
from PIL import Image

from vsel_platform.errors import OutOfMemoryError
from vsel_platform.models import batching
from vsel_platform.models.batching import BatchLimits
from vsel_platform.models.image_features import TowerFeatures
from vsel_platform.models.images import ImageInput


class Tower:
    """A tower whose feature is the mean of the pixels; it fits `fits` images."""

    fingerprint = "tower"
    device = "cpu"

    def __init__(self, fits=1000):
        self.batches = []
        self._fits = fits

    def preprocess(self, image):
        return np.asarray(image, dtype=np.float32).transpose(2, 0, 1)

    def features(self, images):
        self.batches.append(len(images))
        if len(images) > self._fits:
            raise MemoryError
        return [torch.from_numpy(pixels.mean(axis=(1, 2)))[None] for pixels in images]


@pytest.fixture(autouse=True)
def _quick_cleanup(monkeypatch):
    monkeypatch.setattr(batching, "free_memory", lambda: None)


def grey(image_id):
    if image_id == "missing":
        raise FileNotFoundError(image_id)
    return Image.new("RGB", (4, 4), (int(image_id),) * 3)


def features(tower, provider=grey, **options):
    return TowerFeatures(tower, provider, limits=BatchLimits(), **options)


def test_every_image_passes_the_tower_once():
    tower = Tower()
    found, failures = features(tower).get(["3", "1", "3", "1", "3"])
    assert sum(tower.batches) == 2
    assert {i: float(f[0, 0]) for i, f in found.items()} == {"3": 3.0, "1": 1.0}
    assert not failures


def test_a_missing_image_is_a_failure_beside_the_others():
    found, failures = features(Tower()).get(["1", "missing", "2"])
    assert sorted(found) == ["1", "2"]
    assert failures["missing"].reason == "image_missing"


def test_preprocessed_pixels_are_taken_as_they_are():
    pixels = np.full((3, 4, 4), 7, dtype=np.float32)
    found, _ = features(Tower(), lambda _: pixels).get(["x"])
    assert float(found["x"][0, 0]) == 7.0


def test_kept_features_are_not_computed_again_up_to_the_limit():
    tower = Tower()
    own = features(tower, keep_bytes=2 * 3 * 4)
    first, _ = own.get(["1", "2", "3"])
    second, _ = own.get(["1", "2", "3"])
    assert own.n_computed == 4
    assert all(torch.equal(first[i], second[i]) for i in first)


def test_nothing_is_kept_by_default():
    own = features(Tower())
    own.get(["1"])
    own.get(["1"])
    assert own.n_computed == 2


def test_short_memory_halves_the_batch_for_good(monkeypatch):
    monkeypatch.setattr(batching, "_free_bytes", lambda device: 10**12)
    tower = Tower(fits=8)
    found, _ = features(tower).get([str(i) for i in range(64)])
    assert {i: float(f[0, 0]) for i, f in found.items()} == {str(i): float(i) for i in range(64)}
    assert tower.batches == [32, 16, 8, 8, 16, 8, 8] + [8] * 4


def test_an_image_that_does_not_fit_alone_is_named():
    with pytest.raises(OutOfMemoryError, match="image 5"):
        features(Tower(fits=0)).get(["5"])


def test_layouts_of_images_that_have_one_are_kept():
    class Tiles(Tower):
        def preprocess(self, image):
            return ImageInput({"pixels": np.zeros((1, 3, 4, 4), np.float32)}, (1, image.width))

        def features(self, images):
            return [torch.zeros(image.layout[1], 3) for image in images]

    towers = features(Tiles(), lambda i: Image.new("RGB", (int(i), 4)))
    found, _ = towers.get(["3", "5"])
    assert {i: len(f) for i, f in found.items()} == {"3": 3, "5": 5}
    assert towers.layouts == {"3": (1, 3), "5": (1, 5)}
