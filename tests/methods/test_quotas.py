"""Groups and their weights on small cases by hand, and the places that follow from them."""

import math

import numpy as np
import pytest
from array_signals import ArraySignals, signals_of
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from vsel_platform.methods import quotas
from vsel_platform.methods.api import Clustering, Clusters, Options
from vsel_platform.selection.budgets import water_filling
from vsel_platform.selection.diversity import normalise_rows


class Clustered(ArraySignals):
    """Signals with clusters given as labels; remembers which clustering was asked for."""

    def clusters(self, clustering):
        self.asked = clustering
        return Clusters(np.array(self.labels, np.int64), np.zeros(len(self.labels)))


def clustered(labels, matrix=None):
    plain = signals_of("a" * len(labels))
    index = np.cumsum(np.array(labels) >= 0) - 1
    matrix = np.eye(max(1, len(labels))) if matrix is None else matrix
    matrices = {"image_embeddings": (np.where(np.array(labels) >= 0, index, -1), matrix)}
    signals = Clustered(plain.sample_ids, plain.tasks, plain.image_ids, matrices=matrices)
    signals.labels = labels
    return signals


def places(groups, budget, can_rank=None):
    """Places of every group, as a selection gives them."""
    can = np.ones(len(groups.labels), np.bool_) if can_rank is None else can_rank
    sizes = {name: int((groups.labels[can] == i).sum()) for i, name in enumerate(groups.names)}
    return water_filling(dict(zip(groups.names, groups.weights, strict=True)), sizes, budget)


def zeros(n):
    return np.zeros(n)


def test_one_group_holds_every_row():
    groups = quotas.one_group(signals_of("aba"), zeros(3), Options())
    assert (groups.labels.tolist(), list(groups.names), list(groups.weights)) == ([0, 0, 0], ["all"], [1.0])


def test_tasks_are_sorted_and_weighted_by_their_rows():
    groups = quotas.by_task(signals_of("bbacb"), zeros(5), Options())
    assert (groups.labels.tolist(), groups.names, groups.weights) == ([1, 1, 0, 2, 1], ["a", "b", "c"], [1, 3, 1])
    equal = quotas.equal_tasks(signals_of("bbacb"), zeros(5), Options())
    assert (equal.labels.tolist(), equal.names, equal.weights) == ([1, 1, 0, 2, 1], ["a", "b", "c"], [1, 1, 1])


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("by_task", {"a": 3, "b": 2, "c": 1}), ("equal_tasks", {"a": 2, "b": 2, "c": 2})],
)
def test_places_are_exact_by_largest_remainder(quota, expected):
    # Shares of 6: 3.27, 1.64, 1.09: the last place is b's. Equal shares are 2 each.
    groups = getattr(quotas, quota)(signals_of("aaaaaabbbcc"), zeros(11), Options())
    assert places(groups, 6) == expected


def test_clusters_keep_their_share_or_get_the_same():
    options = quotas.ClusterOptions(n_clusters=3, cluster_seed=9, space="vision_representations")
    signals = clustered([0, 2, 2, 1, 2, 2])
    groups = quotas.by_cluster(signals, zeros(6), options)
    assert signals.asked == Clustering("vision_representations", 3, 9)
    assert (list(groups.names), list(groups.weights)) == (["cluster 0", "cluster 1", "cluster 2"], [1, 1, 4])
    assert list(quotas.equal_clusters(signals, zeros(6), options).weights) == [1, 1, 1]


QUOTAS_OF_CLUSTERS = [
    (quotas.by_cluster, quotas.ClusterOptions()),
    (quotas.equal_clusters, quotas.ClusterOptions()),
    (quotas.coincide, quotas.CoincideOptions()),
]


@pytest.mark.parametrize(("quota", "options"), QUOTAS_OF_CLUSTERS)
def test_rows_with_a_score_but_no_cluster_keep_their_share(quota, options):
    # Rows 6 and 7 have no vector; row 7 has no score either.
    scores = np.array([0, 0, 0, 0, 0, 0, 0, np.nan])
    groups = quota(clustered([0, 0, 0, 1, 1, 1, -1, -1], np.eye(6)), scores, options)
    assert groups.names[-1] == "no vector"
    assert groups.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, -1]
    assert groups.weights[2] == pytest.approx(sum(groups.weights[:2]) / 6)
    assert sum(places(groups, 7, np.isfinite(scores)).values()) == 7


@pytest.mark.parametrize(("quota", "options"), QUOTAS_OF_CLUSTERS)
def test_rows_without_a_score_need_no_place(quota, options):
    groups = quota(clustered([0, 1, -1], np.eye(2)), np.array([0, 0, np.nan]), options)
    assert list(groups.names) == ["cluster 0", "cluster 1"]
    assert groups.labels.tolist() == [0, 1, -1]


def angles(*degrees):
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


def coincide_weights(labels, matrix, **options):
    found = quotas.coincide(clustered(labels, matrix), zeros(len(labels)), quotas.CoincideOptions(**options))
    return np.array(found.weights)


def test_coincide_by_hand():
    # Two rows 60 degrees apart (distance 1), and one alone at a right angle to their middle.
    found = coincide_weights([0, 0, 1], angles(-30, 30, 90), temperature=0.5, bandwidth=1.0)
    assert found == pytest.approx([1, 1])  # both transfer 0, and exp(0) = 1
    # A third cluster at 45 degrees: S_0 = (0 + cos 45) / 2 = S_1, S_2 = cos 45.
    found = coincide_weights([0, 0, 1, 2], angles(-30, 30, 90, 45), temperature=0.5, bandwidth=1.0)
    s, density = math.cos(math.pi / 4), math.exp(-0.5)
    exponents = np.array([s / 2 / density, s / 2, s]) / 0.5
    assert found == pytest.approx(np.exp(exponents - exponents.max()))


def plain_coincide(unit, labels, temperature, bandwidth):
    """exp(S / (tau D)) from all pairs of rows and of centroids."""
    members = [unit[labels == c].astype(float) for c in range(labels.max() + 1)]
    centroids = normalise_rows(np.array([rows.sum(axis=0) for rows in members], np.float32)).astype(float)
    exponents = []
    for c, rows in enumerate(members):
        transfer = np.mean([centroids[c] @ other for i, other in enumerate(centroids) if i != c])
        kernel = [
            math.exp(-((a - b) ** 2).sum() / (2 * bandwidth**2))
            for i, a in enumerate(rows)
            for j, b in enumerate(rows)
            if i != j
        ]
        exponents.append(transfer / (np.mean(kernel) if kernel else 1.0) / temperature)
    return np.exp(np.array(exponents) - max(exponents))


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_coincide_is_its_formula_over_all_pairs(data):
    n = data.draw(st.integers(4, 20))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    unit = normalise_rows(rng.normal(size=(n, 3)).astype(np.float32))
    labels = rng.permutation(np.arange(n) % data.draw(st.integers(2, 4)))
    temperature, bandwidth = data.draw(st.sampled_from([0.1, 1.0])), data.draw(st.sampled_from([0.5, 1.0]))
    found = coincide_weights(labels.tolist(), unit, temperature=temperature, bandwidth=bandwidth)
    np.testing.assert_allclose(found, plain_coincide(unit, labels, temperature, bandwidth), rtol=1e-4, atol=1e-9)


def test_dense_clusters_get_less():
    # Clusters 0 and 1 have the same centroid; the rows of 1 are further apart.
    found = coincide_weights([0, 0, 1, 1, 2, 2], angles(29, 31, -10, 70, 100, 101))
    assert found[1] > found[0]


def test_clusters_far_from_all_others_get_less():
    found = coincide_weights([0, 0, 1, 1, 2, 2], angles(0, 10, 15, 25, 180, 190))
    assert found[2] < min(found[:2])


def test_a_higher_temperature_makes_clusters_more_equal():
    labels, matrix = [0, 0, 1, 1, 2, 2], angles(0, 10, 15, 55, 100, 101)
    ratios = [np.ptp(np.log(coincide_weights(labels, matrix, temperature=t))) for t in (0.1, 0.5, 5.0)]
    assert ratios[0] > ratios[1] > ratios[2] > 0


def test_the_size_of_a_cluster_does_not_raise_its_weight():
    # 60 rows at the corners of one hexagon against 6: the same S, and nearly the same D.
    corners = normalise_rows(np.eye(6, dtype=np.float32) + 0.5)
    matrix = np.concatenate([np.tile(corners, (10, 1)), corners[:, ::-1]])
    found = coincide_weights([0] * 60 + [1] * 6, matrix)
    assert found[0] <= found[1] * 1.001


def test_a_large_cluster_is_as_dense_as_its_first_rows(monkeypatch):
    matrix = normalise_rows(np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32))
    labels = [0] * 30 + [1] * 10
    whole = coincide_weights(labels, matrix)
    monkeypatch.setattr(quotas, "DENSITY_ROWS", 10)
    sampled = coincide_weights(labels, matrix)
    assert sampled.tolist() != whole.tolist()
    monkeypatch.setattr(quotas, "DENSITY_ROWS", 30)
    assert coincide_weights(labels, matrix).tolist() == whole.tolist()


@pytest.mark.parametrize("bandwidth", [1e-3, 1e3])
def test_extreme_widths_give_finite_weights(bandwidth):
    found = coincide_weights([0, 0, 1, 2, 2], angles(0, 40, 100, 180, 220), bandwidth=bandwidth)
    assert np.isfinite(found).all()
    assert found.max() == 1


def test_a_single_cluster_gets_everything():
    assert coincide_weights([0, 0], angles(0, 50)).tolist() == [1]


def test_the_order_of_the_rows_does_not_change_the_weights():
    rng = np.random.default_rng(4)
    matrix = normalise_rows(rng.normal(size=(50, 5)).astype(np.float32))
    labels, order = np.arange(50) % 4, rng.permutation(50)
    straight = coincide_weights(labels.tolist(), matrix)
    np.testing.assert_allclose(coincide_weights(labels[order].tolist(), matrix[order]), straight, rtol=1e-7)


def strata(scores, **options):
    return quotas.strata(signals_of("a" * len(scores)), np.array(scores, float), quotas.StrataOptions(**options))


def test_strata_are_ranges_of_equal_width_without_the_hardest():
    groups = strata([0, 1, 2, 3, 4, 5, 6, 7, 8, 100], cut_off=0.1, strata=4)
    assert groups.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 3, -1]
    assert list(groups.names) == [f"stratum {i}" for i in range(4)]
    assert places(groups, 5) == {"stratum 0": 2, "stratum 1": 1, "stratum 2": 1, "stratum 3": 1}


def test_an_empty_stratum_gives_its_share_to_the_others():
    groups = strata([0, 0, 0, 9, 9, 9], cut_off=0, strata=3)
    assert groups.labels.tolist() == [0, 0, 0, 2, 2, 2]
    assert places(groups, 4) == {"stratum 0": 2, "stratum 1": 0, "stratum 2": 2}


def test_rows_without_a_score_are_in_no_stratum_and_cut_none():
    groups = strata([np.nan, 1, 2, np.inf, -np.inf, 3, 4], cut_off=0.25, strata=2)
    assert groups.labels.tolist() == [-1, 0, 1, -1, -1, 1, -1]
    assert set(strata([np.nan, np.nan]).labels.tolist()) == {-1}


@pytest.mark.parametrize(
    ("cut_off", "n", "kept"), [(0.29, 100, 71), (0.1, 30, 27), (0.1, 9, 9), (0, 5, 5), (0.99, 1, 1)]
)
def test_the_share_that_is_cut_is_exact(cut_off, n, kept):
    assert (strata(np.arange(n), cut_off=cut_off).labels >= 0).sum() == kept


def test_of_equal_scores_the_later_ids_are_cut():
    assert strata([5, 5, 5, 5], cut_off=0.5, strata=3).labels.tolist() == [2, 2, -1, -1]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), min_size=1, max_size=40),
    st.floats(0, 0.9),
    st.integers(1, 9),
)
def test_strata_follow_the_scores(scores, cut_off, n_strata):
    groups = strata(scores, cut_off=cut_off, strata=n_strata)
    values = np.array(scores)
    assert (groups.labels[np.isnan(values)] == -1).all()
    kept = groups.labels >= 0
    assert groups.labels.max() < n_strata
    order = np.argsort(values[kept], kind="stable")
    assert (np.diff(groups.labels[kept][order]) >= 0).all()
    left_out = ~kept & ~np.isnan(values)
    if left_out.any() and kept.any():
        assert values[left_out].min() >= values[kept].max()


@pytest.mark.parametrize(
    ("options", "values"),
    [
        (quotas.StrataOptions, {"cut_off": 1}),
        (quotas.StrataOptions, {"cut_off": -0.1}),
        (quotas.StrataOptions, {"strata": 0}),
        (quotas.CoincideOptions, {"temperature": 0}),
        (quotas.CoincideOptions, {"bandwidth": 0}),
        (quotas.ClusterOptions, {"clusters": 3}),
    ],
)
def test_options_that_make_no_sense_are_refused_by_name(options, values):
    with pytest.raises(ValidationError, match=next(iter(values))):
        options(**values)
