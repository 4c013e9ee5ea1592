import numpy as np
import pytest
from PIL import Image

from vsel_platform.config import EncoderSettings
from vsel_platform.demo.artwork import Drawing, render
from vsel_platform.demo.encoder import EfficientNetLite0Encoder, load_efficientnet_lite0
from vsel_platform.demo.pictures import single
from vsel_platform.models.encoders import ImageEncoder, load_image_encoder

SETTINGS = EncoderSettings(name="efficientnet_lite0")


@pytest.fixture(scope="module")
def encoder() -> EfficientNetLite0Encoder:
    return load_efficientnet_lite0(SETTINGS, "cpu")


def pixels_of(encoder: EfficientNetLite0Encoder, pictures: list[Image.Image]) -> np.ndarray:
    return np.stack([encoder.preprocess(picture) for picture in pictures])


def test_it_is_registered_and_follows_the_protocol(encoder: EfficientNetLite0Encoder) -> None:
    found = load_image_encoder(SETTINGS, "cpu")
    assert isinstance(found, ImageEncoder)
    assert (found.name, found.dimension, found.device) == ("efficientnet_lite0", 320, "cpu")
    assert found.fingerprint == encoder.fingerprint


def test_vectors_are_the_same_each_time_and_in_any_batch(
    encoder: EfficientNetLite0Encoder, drawings: list[Drawing]
) -> None:
    pixels = pixels_of(encoder, [single(drawing).draw() for drawing in drawings[::500]])
    together = encoder.encode(pixels)
    assert (together.shape, together.dtype) == ((len(pixels), 320), np.float32)
    assert np.array_equal(together, encoder.encode(pixels))
    alone = np.concatenate([encoder.encode(pixels[i : i + 1]) for i in range(len(pixels))])
    assert np.array_equal(together, alone)
    assert np.array_equal(together[::-1], encoder.encode(pixels[::-1]))


def test_the_same_thing_by_another_vendor_is_nearer_than_other_things(
    encoder: EfficientNetLite0Encoder, drawing_of: dict[str, Drawing]
) -> None:
    keys = ["1f34c", "1f697", "1f436", "2764", "1f3e0", "1f4d6", "1f33b", "1f511", "26bd", "1f355"]
    vectors = {}
    for vendor in ("noto", "twemoji"):
        pictures = [single(drawing_of[f"{vendor}/{key}"]).draw() for key in keys]
        found = encoder.encode(pixels_of(encoder, pictures))
        centred = found - found.mean(axis=0)
        vectors[vendor] = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    nearest = (vectors["noto"] @ vectors["twemoji"].T).argmax(axis=1)
    assert (nearest == np.arange(len(keys))).mean() >= 0.7


def test_the_number_format_is_part_of_the_fingerprint_and_used(
    encoder: EfficientNetLite0Encoder, drawing_of: dict[str, Drawing]
) -> None:
    half = load_efficientnet_lite0(EncoderSettings(name="efficientnet_lite0", dtype="bfloat16"), "cpu")
    assert half.fingerprint != encoder.fingerprint
    pixels = pixels_of(encoder, [single(drawing_of["noto/1f355"]).draw()])
    full, rounded = encoder.encode(pixels), half.encode(pixels)
    assert not np.array_equal(full, rounded)
    assert np.corrcoef(full[0], rounded[0])[0, 1] > 0.95


def test_transparent_and_grey_pictures_are_taken(
    encoder: EfficientNetLite0Encoder, drawing_of: dict[str, Drawing]
) -> None:
    image = render(drawing_of["noto/1f355"])
    pixels = pixels_of(encoder, [image, image.convert("L"), image.convert("P")])
    assert np.isfinite(encoder.encode(pixels)).all()
