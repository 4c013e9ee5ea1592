"""The clustering score of texts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsel_platform.errors import SelectionError
from vsel_platform.methods import text_clusters
from vsel_platform.methods.text_clusters import cluster_texts, row_means, text_scores


def topics(n=400, d=8, n_topics=4, seed=0):
    """Vectors around a few far centres, and their topic."""
    rng = np.random.default_rng(seed)
    topic = rng.integers(0, n_topics, n)
    centres = 20 * rng.normal(size=(n_topics, d))
    return (centres[topic] + rng.normal(size=(n, d))).astype(np.float32), topic


def test_texts_far_from_their_topic_score_high():
    vectors, topic = topics()
    vectors[7] += 6
    found = cluster_texts(vectors, 4, seed=1)
    assert all(len(set(found.labels[topic == t])) == 1 for t in range(4))
    centroids = np.stack([vectors[topic == t].mean(axis=0) for t in range(4)])
    squared = ((vectors - centroids[topic]) ** 2).sum(axis=1)
    np.testing.assert_allclose(found.distances, np.minimum(squared / np.quantile(squared, 0.99), 1), rtol=1e-4)
    assert found.distances.argmax() in np.flatnonzero(found.distances == 1)
    assert found.distances[7] == 1


def test_a_row_has_the_mean_of_its_turns_and_nan_without_any():
    vectors, _ = topics(6)
    rows = np.array([0, 0, 2, 2, 2, 4])
    scores = text_scores(vectors, rows, 6, 2, seed=1)
    turns = cluster_texts(vectors, 2, seed=1).distances
    np.testing.assert_allclose(scores[[0, 2, 4]], [turns[:2].mean(), turns[2:5].mean(), turns[5]])
    assert np.isnan(scores[[1, 3, 5]]).all()


def test_one_outlier_does_not_set_the_scale():
    vectors, _ = topics()
    outlier = np.concatenate([vectors, vectors[:1] + 1000])
    # With a single cluster the outlier cannot have one of its own.
    scores = text_scores(outlier, np.arange(401), 401, 1, seed=1)
    assert scores[-1] == 1
    assert np.median(scores) > 0.1
    squared = ((outlier - outlier.mean(axis=0)) ** 2).sum(axis=1)
    assert np.median(squared / squared.max()) < 0.01


def test_a_text_that_occurs_often_is_trained_on_once(monkeypatch):
    vectors, _ = topics(50)
    repeated = np.concatenate([vectors, np.repeat(vectors[3:4], 500, axis=0)])
    seen = []
    fit = text_clusters.fit_kmeans
    monkeypatch.setattr(text_clusters, "fit_kmeans", lambda data, *a, **k: seen.append(len(data)) or fit(data, *a, **k))
    once, often = cluster_texts(vectors, 3, seed=1), cluster_texts(repeated, 3, seed=1)
    assert seen == [50, 50]
    np.testing.assert_array_equal(often.labels[:50], once.labels)
    np.testing.assert_array_equal(often.distances[:50], once.distances)
    assert (often.distances[50:] == once.distances[3]).all()


@settings(max_examples=20, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 12))
def test_the_order_of_the_turns_does_not_matter(random, n_clusters):
    vectors, _ = topics(60, seed=3)
    vectors[10:20] = vectors[:10]
    rows = np.arange(60) % 25
    moved = list(range(60))
    random.shuffle(moved)
    first = text_scores(vectors, rows, 25, n_clusters, seed=2)
    again = text_scores(vectors[moved], rows[moved], 25, n_clusters, seed=2)
    np.testing.assert_allclose(again, first, rtol=1e-12)


def test_vectors_that_are_not_finite_take_no_part():
    vectors, _ = topics(30)
    broken = np.concatenate([vectors, np.full((2, 8), np.nan, np.float32)])
    broken[-1] = np.inf
    whole, found = cluster_texts(vectors, 3, seed=1), cluster_texts(broken, 3, seed=1)
    np.testing.assert_array_equal(found.distances[:30], whole.distances)
    assert found.labels[30:].tolist() == [-1, -1]
    scores = text_scores(broken, np.append(np.arange(31), 30), 31, 3, seed=1)
    assert np.isnan(scores[30])
    assert np.isfinite(scores[:30]).all()


def test_texts_that_are_all_centroids_score_zero():
    vectors, _ = topics(5)
    same = np.repeat(vectors, 3, axis=0)
    assert text_scores(same, np.arange(15), 15, 1000, seed=1).tolist() == [0] * 15


def test_no_turns_give_no_scores():
    empty = np.empty((0, 8), np.float32)
    assert np.isnan(text_scores(empty, np.empty(0, np.int64), 2, 3, seed=1)).all()


def test_arrays_that_do_not_fit_are_refused():
    vectors, _ = topics(4)
    with pytest.raises(SelectionError, match="4 text vectors and 3 row numbers"):
        text_scores(vectors, np.arange(3), 4, 2, seed=1)
    for rows in ([0, 1, 2, 3], [0, 1, -1, 2]):
        with pytest.raises(SelectionError, match="there are 3 rows"):
            row_means(np.zeros(4), np.array(rows), 3)
    with pytest.raises(SelectionError, match=r"got \(4, 8\) and 0"):
        cluster_texts(vectors, 0, seed=1)
