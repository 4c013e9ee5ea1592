"""Clusters: made once for all methods that ask for the same, stale after what they depend on and nothing else."""

import math

import numpy as np
import pytest
from small_project import row, small_rows, text_row

from vsel_platform.errors import NotMaterializedError, SelectionError
from vsel_platform.methods.api import Clustering
from vsel_platform.pipeline import clustering
from vsel_platform.pipeline.method_signals import StoreSignals
from vsel_platform.pipeline.plan import next_steps
from vsel_platform.pipeline.quality import check_published
from vsel_platform.selection.diversity import normalise_rows
from vsel_platform.storage.pointers import parse_reference, read_version

ROW = {"dataset": "shapes", "budget": {"rows": 12}}
IMAGES = {"space": "image_embeddings"}
RECIPES = {
    "recipes": {
        "semdedup": ROW | {"method": "semdedup"},
        "coincide": ROW | {"method": "coincide", "options": IMAGES},
        "five": ROW | {"method": "semdedup", "options": {"n_clusters": 5}},
        "random": ROW | {"method": "random"},
    }
}
NAMES = list(RECIPES["recipes"])
N_ROWS, N_TEXT = 90, 6
DEFAULT = Clustering()
FIVE = Clustering(n_clusters=5)


@pytest.fixture(scope="module")
def driven(make_project):
    """A project with three recipes on two clusterings, driven to the end once. Nothing may change it."""
    project = make_project("clusters")
    return project, project.drive(NAMES, RECIPES)


@pytest.fixture(scope="module")
def ctx(driven):
    return driven[0].context(RECIPES)


def rows_of(ctx, which):
    return ctx.store.read_partition(clustering.TABLE, clustering.partition("shapes", which)).to_pylist()


def signals_of(ctx, which=DEFAULT):
    return StoreSignals(ctx, clustering.source_pointers(ctx, "shapes", which))


def test_two_recipes_share_a_clustering_and_each_is_made_once(driven, ctx):
    assert clustering.clusterings_of(ctx, "shapes") == [DEFAULT, FIVE]
    (result,) = [result for result in driven[1] if result.stage == clustering.TABLE]
    assert (result.computed, result.reused) == (2 * (N_ROWS + N_TEXT), 0)
    assert len(list(ctx.store.pointers(clustering.TABLE))) == 2
    assert next_steps(ctx, NAMES) == []
    shared = ctx.store.require(clustering.TABLE, clustering.partition("shapes", DEFAULT)).reference
    key = {"dataset": "shapes", "score": "prototypicality", "variant": "default"}
    assert shared in ctx.store.require("method_scores", key).inputs
    assert shared in ctx.store.require("selected_subset", {"recipe": "coincide"}).inputs


def test_a_second_run_makes_nothing(driven, ctx):
    before = [pointer.reference for pointer in ctx.store.pointers(clustering.TABLE)]
    result = clustering.run(ctx, "shapes")
    assert (result.computed, result.reused) == (0, 2 * (N_ROWS + N_TEXT))
    assert [pointer.reference for pointer in ctx.store.pointers(clustering.TABLE)] == before


def test_rows_of_one_image_are_in_one_cluster_and_text_rows_in_none(ctx):
    for which, count in ((DEFAULT, math.isqrt(N_ROWS)), (FIVE, 5)):
        found = rows_of(ctx, which)
        assert sorted({r["cluster"] for r in found} - {None}) == list(range(count))
        assert sum(r["cluster"] is None for r in found) == sum(r["cosine"] is None for r in found) == N_TEXT
        assert [r["sample_id"] for r in found] == signals_of(ctx).sample_ids


def test_a_row_is_with_its_nearest_centroid_and_knows_the_cosine(ctx):
    signals = signals_of(ctx)
    index, matrix = signals.vectors(DEFAULT.space)
    unit = normalise_rows(matrix).astype(float)
    found = signals_of_clusters(ctx)
    has = index >= 0
    means = np.array([unit[index[found.labels == c]].mean(axis=0) for c in range(found.n_clusters)])
    distances = ((unit[index[has], None] - means[None]) ** 2).sum(axis=2)
    own = np.take_along_axis(distances, found.labels[has][:, None], axis=1)[:, 0]
    assert (own <= distances.min(axis=1) + 1e-3).mean() > 0.9
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    cosines = (unit[index[has]] * means[found.labels[has]]).sum(axis=1)
    np.testing.assert_allclose(found.cosine[has], cosines, atol=0.02)


def signals_of_clusters(ctx):
    pointer = ctx.store.require(clustering.TABLE, clustering.partition("shapes", DEFAULT))
    return StoreSignals(ctx, [*clustering.source_pointers(ctx, "shapes", DEFAULT), pointer]).clusters(DEFAULT)


def test_a_clustering_that_was_not_asked_for_is_refused(ctx):
    pointer = ctx.store.require(clustering.TABLE, clustering.partition("shapes", DEFAULT))
    signals = StoreSignals(ctx, [*clustering.source_pointers(ctx, "shapes", DEFAULT), pointer])
    with pytest.raises(NotMaterializedError, match="image_embeddings-5-12345"):
        signals.clusters(FIVE)


def test_what_is_published_passes_its_checks_and_names_what_was_read(ctx):
    for pointer in ctx.store.pointers(clustering.TABLE):
        assert all(outcome.passed for outcome in check_published(ctx, pointer))
        tables = {read_version(ctx.store.files, *parse_reference(r)).table for r in pointer.inputs}
        assert tables == {"manifest", "samples", "image_embeddings"}


@pytest.mark.parametrize(
    ("changes", "stale"),
    [
        ({"recipes.five.options": {"n_clusters": 6}}, {"clusters"}),
        ({"recipes.coincide.options": IMAGES | {"cluster_seed": 1}}, {"clusters"}),
        ({"recipes.five.options": {"n_clusters": 5, "max_cosine": 0.9}}, {"selected_subset"}),
        ({"recipes.coincide.options": IMAGES | {"temperature": 1.0}}, {"selected_subset"}),
        ({"recipes.five.budget": {"rows": 11}}, {"selected_subset"}),
        ({"image_encoder.batch_size": 3}, set()),
        ({"vlm.max_tokens": 200}, set()),
        ({"recipes.random.seed": 7}, {"selected_subset"}),
    ],
)
def test_a_changed_setting_makes_its_stage_stale_and_no_other(driven, changes, stale):
    assert {step.asset for step in next_steps(driven[0].context(RECIPES | changes), NAMES)} == stale


def test_a_new_clustering_leaves_the_others_as_they_are(make_project):
    project = make_project("more")
    project.drive(["semdedup"], {"recipes": {"semdedup": RECIPES["recipes"]["semdedup"]}})
    ctx = project.context({"recipes": {name: RECIPES["recipes"][name] for name in ("semdedup", "five")}})
    assert not clustering.is_current(ctx, "shapes")
    before = ctx.store.require(clustering.TABLE, clustering.partition("shapes", DEFAULT)).reference
    result = clustering.run(ctx, "shapes")
    assert (result.computed, result.reused) == (N_ROWS + N_TEXT, N_ROWS + N_TEXT)
    assert ctx.store.require(clustering.TABLE, clustering.partition("shapes", DEFAULT)).reference == before
    assert clustering.is_current(ctx, "shapes")
    # Rows that come and go change every clustering.
    project.write([*small_rows()[3:], row(300), text_row(77)])
    project.drive(["random"], RECIPES | {"recipes.random": RECIPES["recipes"]["random"]})
    with pytest.raises(NotMaterializedError, match="image_embeddings"):
        clustering.run(project.context(RECIPES), "shapes")
    project.drive(["semdedup", "five"], RECIPES)
    ctx = project.context(RECIPES)
    assert {len(rows_of(ctx, which)) for which in (DEFAULT, FIVE)} == {N_ROWS - 3 + 1 + N_TEXT + 1}


def test_before_anything_is_stored_the_dataset_is_what_is_missing(make_project):
    with pytest.raises(NotMaterializedError, match="manifest"):
        clustering.run(make_project("nothing").context(RECIPES), "shapes")


def test_recipes_without_clusters_ask_for_none(make_project):
    project = make_project("none")
    project.drive(["random"])
    ctx = project.context({"recipes": {"random": RECIPES["recipes"]["random"]}})
    assert clustering.clusterings_of(ctx, "shapes") == []
    assert clustering.is_current(ctx, "shapes")
    assert clustering.want(ctx, "shapes") == ""
    assert clustering.run(ctx, "shapes").data_version == "none"


def vectors(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 6)).astype(np.float32)


def test_without_a_vector_there_is_nothing_to_cluster():
    with pytest.raises(SelectionError, match="image_embeddings-0-12345: no row has a vector"):
        clustering.cluster_rows(np.array([-1, -1]), np.empty((0, 4), np.float32), DEFAULT)


def test_there_are_no_more_clusters_than_distinct_vectors():
    found = clustering.cluster_rows(np.array([0, 1, 1, -1, 0]), vectors(2), Clustering(n_clusters=9))
    assert found.labels[0] == found.labels[4] != found.labels[1] == found.labels[2]
    assert found.labels[3] == -1
    np.testing.assert_allclose(found.cosine, [1, 1, 1, np.nan, 1], atol=1e-6)


def test_the_number_of_clusters_is_the_root_of_the_rows_that_have_a_vector():
    index = np.concatenate([np.arange(30), np.arange(30), np.full(100, -1)])
    assert clustering.cluster_rows(index, vectors(30), DEFAULT).n_clusters == math.isqrt(60)


def test_the_length_of_a_vector_does_not_matter():
    lengths = np.random.default_rng(1).uniform(0.5, 20, size=(80, 1)).astype(np.float32)
    one, other = (
        clustering.cluster_rows(np.arange(80), data, DEFAULT) for data in (vectors(80), vectors(80) * lengths)
    )
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_allclose(one.cosine, other.cosine, atol=1e-5)


def test_the_seed_decides_and_nothing_else():
    first, again, other = (
        clustering.cluster_rows(np.arange(200), vectors(200), Clustering(seed=seed)) for seed in (1, 1, 2)
    )
    assert first.labels.tolist() == again.labels.tolist() != other.labels.tolist()
    assert first.cosine.tobytes() == again.cosine.tobytes()
