"""Embeddings of images."""

import io
import threading

import numpy as np
import pytest
from PIL import Image
from tiny_encoders import save_tiny_dinov2
from tiny_llava import picture

from vsel_platform.config import EncoderSettings
from vsel_platform.errors import ModelError, OutOfMemoryError
from vsel_platform.models import batching
from vsel_platform.models.batching import BatchLimits
from vsel_platform.models.encoders import load_image_encoder
from vsel_platform.signals.image_embeddings import embed_images

IDS = [f"image{i:02}" for i in range(23)]


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory):
    directory = save_tiny_dinov2(tmp_path_factory.mktemp("dinov2"))
    return load_image_encoder(EncoderSettings(model=str(directory)), "cpu")


class MeanColour:
    """An encoder of three numbers that notes what it is given; `fits` images have room."""

    name = fingerprint = "mean-colour"
    dimension = 3
    device = "cpu"

    def __init__(self, fits=1000):
        self.shapes = []
        self._fits = fits

    def preprocess(self, image):
        return np.asarray(image, dtype=np.float32).transpose(2, 0, 1)

    def encode(self, pixels):
        self.shapes.append(len(pixels))
        if len(pixels) > self._fits:
            raise MemoryError
        return pixels.mean(axis=(2, 3))


def items(ids=IDS):
    return [(image_id, lambda image_id=image_id: picture(image_id)) for image_id in ids]


def vectors(encoder, given=None, **options):
    found = {}
    for batch in embed_images(encoder, items() if given is None else given, **options):
        assert batch.vectors.dtype == np.float32
        assert batch.vectors.shape == (len(batch.ids), encoder.dimension)
        found.update(zip(batch.ids, batch.vectors, strict=True))
    return found


def test_vectors_are_those_of_the_encoder(dinov2):
    found = vectors(dinov2, batch_size=8)
    assert list(found) == IDS
    for image_id in IDS:
        expected = dinov2.encode(dinov2.preprocess(picture(image_id))[None])[0]
        np.testing.assert_allclose(found[image_id], expected, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 4, 23, 64])
def test_batch_size_changes_vectors_by_less_than_rounding(dinov2, batch_size):
    expected, found = vectors(dinov2, batch_size=8), vectors(dinov2, batch_size=batch_size)
    for image_id in IDS:
        np.testing.assert_allclose(found[image_id], expected[image_id], atol=1e-5)


def test_a_vector_does_not_depend_on_what_else_is_embedded_to_the_last_bit(dinov2):
    whole = vectors(dinov2, batch_size=8)
    for ids in (IDS[:9], IDS[16:], IDS[3:], IDS[:1]):
        part = vectors(dinov2, items(ids), batch_size=8)
        assert all(np.array_equal(part[image_id], whole[image_id]) for image_id in ids)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_decoding_in_threads_changes_nothing(dinov2, workers):
    expected, found = vectors(dinov2, batch_size=8), vectors(dinov2, batch_size=8, decode_workers=workers)
    assert all(np.array_equal(found[i], expected[i]) for i in IDS)


def test_every_image_is_decoded_once_even_if_named_twice():
    opened, lock = [], threading.Lock()

    def load(image_id):
        with lock:
            opened.append(image_id)
        return picture(image_id)

    doubled = [(i, lambda i=i: load(i)) for i in IDS + IDS[::-1]]
    assert list(vectors(MeanColour(), doubled, batch_size=8)) == IDS
    assert sorted(opened) == IDS


def test_the_model_sees_one_batch_shape():
    encoder = MeanColour()
    vectors(encoder, batch_size=8)
    assert encoder.shapes == [8, 8, 8]


def broken(image_id, error):
    def load():
        raise error

    return image_id, load


def test_broken_images_are_failures_in_their_batch():
    truncated = io.BytesIO()
    picture("x").save(truncated, "PNG")
    data = truncated.getvalue()[:100]
    given = items(IDS[:5])
    given[1] = broken("gone", FileNotFoundError("gone"))
    given[3] = ("cut", lambda: Image.open(io.BytesIO(data)).convert("RGB"))
    first, second = embed_images(MeanColour(), given, batch_size=3)
    assert first.ids == [IDS[0], IDS[2]]
    assert [(f.content_id, f.reason) for f in first.failures] == [("gone", "image_missing")]
    assert [(f.content_id, f.reason) for f in second.failures] == [("cut", "image_unreadable")]
    assert second.ids == [IDS[4]]


@pytest.mark.parametrize("batch_size", [0, 2])
def test_only_broken_images_give_failures_alone(batch_size):
    given = [broken(str(i), OSError("bad")) for i in range(3)]
    batches = list(embed_images(MeanColour(), given, batch_size=batch_size))
    assert [f.content_id for batch in batches for f in batch.failures] == ["0", "1", "2"]
    assert all(batch.vectors.shape == (0, 3) for batch in batches)


def test_a_bomb_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    data = io.BytesIO()
    Image.new("RGB", (100, 100)).save(data, "PNG")
    (batch,) = embed_images(MeanColour(), [("bomb", lambda: Image.open(io.BytesIO(data.getvalue())))])
    assert batch.failures[0].reason == "image_too_large"


def test_a_vector_that_is_not_finite_is_a_failure():
    encoder = MeanColour()
    encoder.preprocess = lambda image: np.full((3, 2, 2), np.nan if image.width == 1 else 1.0, np.float32)
    given = [("good", lambda: Image.new("RGB", (2, 2))), ("bad", lambda: Image.new("RGB", (1, 2)))]
    (batch,) = embed_images(encoder, given)
    assert batch.ids == ["good"]
    assert [(f.content_id, f.reason) for f in batch.failures] == [("bad", "non_finite_embedding")]


def test_the_size_is_chosen_when_it_is_left_open(monkeypatch):
    monkeypatch.setattr(batching, "_free_bytes", lambda device: 10**12)
    encoder = MeanColour()
    vectors(encoder)
    assert encoder.shapes == [32]


def test_short_memory_halves_the_shape_for_good(monkeypatch):
    monkeypatch.setattr(batching, "free_memory", lambda: None)
    encoder, limits = MeanColour(fits=4), BatchLimits()
    expected = vectors(MeanColour(), batch_size=16)
    found = vectors(encoder, batch_size=16, limits=limits)
    assert all(np.array_equal(found[i], expected[i]) for i in IDS)
    assert encoder.shapes == [16, 8, 4, 4, 8, 4, 4, 4, 4]
    assert limits.limit(("mean-colour", "cpu", "images"), 16) == 4


def test_an_image_that_does_not_fit_alone_is_named(monkeypatch):
    monkeypatch.setattr(batching, "free_memory", lambda: None)
    with pytest.raises(OutOfMemoryError, match="image image00"):
        vectors(MeanColour(fits=0), batch_size=4)


def test_pictures_of_different_sizes_are_a_model_error():
    given = [(str(i), lambda i=i: Image.new("RGB", (i, 4))) for i in (3, 4)]
    with pytest.raises(ModelError, match="different sizes"):
        vectors(MeanColour(), given)


def test_progress_counts_images():
    seen = []
    vectors(MeanColour(), batch_size=10, on_batch=seen.append)
    assert seen == [10, 20, 23]
