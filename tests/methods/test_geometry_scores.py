"""Scores from vectors and clusters against tables of all pairs; rows without a vector have no score."""

import numpy as np
import pytest
from array_signals import ArraySignals, signals_of
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from vsel_platform.methods import geometry_scores as scores
from vsel_platform.methods.api import AttentionTops, Clustering, Clusters, Options


class Clustered(ArraySignals):
    """Signals with clusters and attention given as arrays; remembers which clustering was asked for."""

    def clusters(self, clustering):
        self.asked = clustering
        return Clusters(np.array([0, 0, 1, -1]), np.array([1.0, 0.5, 0.25, np.nan]))

    def attention_tops(self):
        sharpness = np.array([0.5, 1.0, 0.25, np.nan])
        tops = AttentionTops(np.full(4, 16), [np.arange(4)] * 4, sharpness)
        return tops, AttentionTops(np.full(4, 16), [np.arange(4)] * 4, np.full(4, 99.0))


def clustered(**values):
    plain = signals_of("aabb", text=(3,), **values)
    return Clustered(plain.sample_ids, plain.tasks, plain.image_ids, plain.mean_losses, plain.matrices)


def with_vectors(index, matrix, **values):
    return signals_of("a" * len(index), matrices={"vision_representations": (index, matrix)}, **values)


def prism(signals, **options):
    return scores.prism(signals, scores.PrismOptions(**options))


def plain_prism(vectors, power):
    """Mean (squared) correlation with the other rows, from the table of all pairs."""
    centred = vectors.astype(float) - vectors.astype(float).mean(axis=0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    table = (unit @ unit.T) ** power
    np.fill_diagonal(table, 0)
    return table.sum(axis=1) / (len(vectors) - 1)


def test_without_a_score_all_rows_are_worth_the_same():
    found = scores.uniform(signals_of("aabc", text=(1,)), Options())
    assert found.score.tolist() == [0, 0, 0, 0]


def test_prototypicality_is_the_cosine_or_its_opposite():
    signals = clustered()
    far = scores.prototypicality(signals, scores.PrototypicalityOptions(n_clusters=7, cluster_seed=5))
    assert signals.asked == Clustering("image_embeddings", 7, 5)
    near = scores.prototypicality(signals, scores.PrototypicalityOptions(prefer="typical"))
    np.testing.assert_array_equal(near.score, [1, 0.5, 0.25, np.nan])
    np.testing.assert_array_equal(far.score, [-1, -0.5, -0.25, np.nan])
    np.testing.assert_array_equal(far.columns["cosine"], near.score)


def test_a_row_without_a_cluster_has_none_and_not_a_number_that_looks_like_one():
    found = scores.prototypicality(clustered(), scores.PrototypicalityOptions())
    assert found.columns["cluster"].tolist() == [0, 0, 1, None]


def test_prism_by_hand():
    # Around their mean (0, 0): two opposite pairs at right angles. Each row has one opposite and two at 0.
    signals = with_vectors([0, 1, 2, 3], np.array([[1, 0], [-1, 0], [0, 2], [0, -2]]))
    np.testing.assert_allclose(prism(signals, power=1).columns["redundancy"], [-1 / 3] * 4)
    np.testing.assert_allclose(prism(signals, power=2).columns["redundancy"], [1 / 3] * 4)
    np.testing.assert_allclose(prism(signals, power=2).score, [-1 / 3] * 4, atol=1e-9)


@pytest.mark.parametrize("power", [1, 2])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_prism_is_the_mean_over_all_pairs_whatever_the_blocks(power, data):
    n, d = data.draw(st.integers(3, 12)), data.draw(st.integers(2, 5))
    vectors = np.random.default_rng(data.draw(st.integers(0, 999))).normal(size=(n, d)).astype(np.float32) + 3
    signals = with_vectors(range(n), vectors, block_rows=data.draw(st.integers(1, n)))
    np.testing.assert_allclose(
        prism(signals, power=power).columns["redundancy"], plain_prism(vectors, power), atol=1e-6
    )


def test_rows_that_share_a_vector_are_rows_each():
    vectors = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    index = [0, 1, 1, 2, 3, 0]
    signals = with_vectors(index, vectors)
    np.testing.assert_allclose(prism(signals).columns["redundancy"], plain_prism(vectors[index], 2), atol=1e-6)


def test_rows_without_a_vector_have_no_score_and_count_for_no_other():
    vectors = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    whole = prism(with_vectors(range(5), vectors)).score
    found = prism(with_vectors([0, -1, 1, 2, -1, 3, 4], vectors)).score
    np.testing.assert_array_equal(found, [whole[0], np.nan, *whole[1:3], np.nan, *whole[3:]])
    assert np.isnan(prism(with_vectors([-1, -1], vectors)).score).all()


def test_a_row_that_is_the_mean_has_no_correlation_and_no_score():
    vectors = np.array([[7, 8], [5, 6], [6, 7]])  # the last is the mean
    found = prism(with_vectors([0, 1, 2], vectors), power=1)
    np.testing.assert_allclose(found.columns["redundancy"], [-1, -1, np.nan])
    same = np.tile(np.random.default_rng(0).normal(size=(1, 8)).astype(np.float32), (9, 1))
    assert np.isnan(prism(with_vectors(range(9), same)).score).all()


def test_the_order_of_the_rows_does_not_change_a_score():
    vectors = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
    order = np.random.default_rng(1).permutation(200)
    straight = prism(with_vectors(range(200), vectors)).score
    shuffled = prism(with_vectors(range(200), vectors[order], block_rows=7)).score
    np.testing.assert_array_equal(shuffled, straight[order])


def test_magic_is_gain_times_sharpness_and_a_negative_gain_is_none():
    losses = {"no_image": [2.0, 1.0, 3.0, np.nan], "full": [1.0, 1.5, 1.0, 1.0]}
    found = scores.magic(clustered(mean_losses=losses), Options())
    np.testing.assert_array_equal(found.score, [0.5, 0, 0.5, np.nan])
    np.testing.assert_array_equal(found.columns["gain"], [1, -0.5, 2, np.nan])
    np.testing.assert_array_equal(found.columns["sharpness"], [0.5, 1, 0.25, np.nan])


@pytest.mark.parametrize("missing", ["no_image", "full", "sharpness"])
def test_magic_needs_both_losses_and_a_map(missing):
    losses = {"no_image": [2.0, 2.0, 2.0, 2.0], "full": [1.0, 1.0, 1.0, 1.0]}
    if missing != "sharpness":
        losses[missing][0] = np.nan
    found = scores.magic(clustered(mean_losses=losses), Options()).score
    assert np.isnan(found).tolist() == [missing != "sharpness", False, False, True]


@pytest.mark.parametrize(
    ("options", "values"),
    [
        (scores.PrototypicalityOptions, {"prefer": "middle"}),
        (scores.PrototypicalityOptions, {"n_clusters": -1}),
        (scores.PrototypicalityOptions, {"space": "losses"}),
        (scores.PrismOptions, {"power": 3}),
        (scores.PrismOptions, {"clusters": 3}),
    ],
)
def test_options_that_make_no_sense_are_refused_by_name(options, values):
    with pytest.raises(ValidationError, match=next(iter(values))):
        options(**values)


@pytest.mark.parametrize("score", [scores.PROTOTYPICALITY, scores.PRISM, scores.MAGIC])
def test_columns_are_those_that_are_declared(score):
    losses = {"no_image": [2.0] * 4, "full": [1.0] * 4}
    signals = clustered(mean_losses=losses, matrices={"vision_representations": (range(4), np.eye(4))})
    found = score.compute(signals, score.options())
    assert set(found.columns) == {column.name for column in score.columns}
    assert all(len(values) == 4 for values in found.columns.values())
