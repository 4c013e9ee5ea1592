import numpy as np
import pytest

from vsel_platform.errors import DataError
from vsel_platform.evaluation import near_images as module
from vsel_platform.evaluation.near_images import NearImage, near_images


def unit(rng, n, d=16):
    vectors = rng.normal(size=(n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_pairs_are_those_of_comparing_all_with_all(monkeypatch):
    rng = np.random.default_rng(0)
    ours, theirs = unit(rng, 60, 4), unit(rng, 30, 4)
    names, others = [f"t{i}" for i in range(60)], [f"b{i:02d}" for i in range(30)]
    cosines = np.round(ours.astype(float) @ theirs.astype(float).T, 6)
    expected = {(names[i], others[j]) for i, j in zip(*np.nonzero(cosines >= 0.9), strict=True)}
    whole = near_images([(names, ours)], others, theirs, 0.9)
    assert {(pair.train_image, pair.benchmark_image) for pair in whole} == expected
    assert len(expected) > 20
    monkeypatch.setattr(module, "_BLOCK_VALUES", 100)
    cut = near_images([(names[:17], ours[:17]), ([], ours[:0]), (names[17:], ours[17:])], others, theirs, 0.9)
    assert cut == whole
    assert whole == sorted(whole, key=lambda pair: (pair.benchmark_image, -pair.cosine))


def test_equal_vectors_have_a_cosine_of_one_and_the_same_image_is_no_duplicate():
    vectors = unit(np.random.default_rng(1), 2, 384)
    found = near_images([(["copy", "same"], vectors)], ["original", "same"], vectors, 1.0)
    assert found == [NearImage("copy", "original", 1.0)]


def test_vectors_that_cannot_be_compared_are_like_nothing():
    vectors = np.array([[np.nan, 0], [0, 0], [1, 0]], dtype=np.float32)
    found = near_images([(["nan", "zero", "fine"], vectors)], ["nothing", "b"], vectors[1:], -1.0)
    assert found == [NearImage("fine", "b", 1.0)]


def test_vectors_of_another_length_or_encoder_are_refused():
    rng = np.random.default_rng(1)
    with pytest.raises(DataError, match=r"training image t1 has length 2"):
        near_images([(["t0", "t1"], unit(rng, 2) * np.array([[1], [2]], np.float32))], ["b"], unit(rng, 1), 0.9)
    with pytest.raises(DataError, match="8 dimensions"):
        near_images([(["t"], unit(rng, 1, 8))], ["b"], unit(rng, 1), 0.9)
    with pytest.raises(DataError, match="2 benchmark images have embeddings of shape"):
        near_images([], ["b", "c"], unit(rng, 1), 0.9)


def test_without_benchmark_images_nothing_is_near():
    vectors = unit(np.random.default_rng(1), 3)
    assert near_images([(["a", "b", "c"], vectors)], [], vectors[:0], 0.9) == []
