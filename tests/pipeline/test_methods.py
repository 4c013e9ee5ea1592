"""Composed methods through the whole store: computed once, current when they are, updated exactly, replayed."""

import json

import numpy as np
import pyarrow as pa
import pytest
from small_project import row, small_rows, text_row

from vsel_platform.errors import NotMaterializedError, SelectionError
from vsel_platform.methods.registry import composition
from vsel_platform.pipeline import base_losses, method_scores, moments, representations
from vsel_platform.pipeline.estimate import estimate
from vsel_platform.pipeline.explain import explain_row
from vsel_platform.pipeline.lookup import dataset_shards
from vsel_platform.pipeline.method_signals import StoreSignals
from vsel_platform.pipeline.needs import need_pointers
from vsel_platform.pipeline.plan import next_steps
from vsel_platform.pipeline.quality import check_published
from vsel_platform.pipeline.verify import replay_manifest
from vsel_platform.selection.leverage import moments_of
from vsel_platform.storage.pointers import parse_reference, read_version

RECIPES = {
    "recipes": {
        "scalselect": {"dataset": "shapes", "method": "scalselect", "budget": {"rows": 20}},
        "visnec": {"dataset": "shapes", "method": "visnec", "budget": {"percent": 25}},
        "low": {"dataset": "shapes", "method": "perplexity", "options": {"prefer": "low"}, "budget": {"rows": 10}},
        "high": {"dataset": "shapes", "method": "perplexity", "diversity": "gumbel", "budget": {"rows": 10}},
    }
}
NAMES = list(RECIPES["recipes"])
N_ROWS, N_TEXT = 90, 6


@pytest.fixture(scope="module")
def driven(make_project):
    """A project with composed recipes, driven to the end once. Nothing may change it."""
    project = make_project("methods")
    results = project.drive(NAMES, RECIPES)
    return project, results


def vectors_of(ctx):
    return ctx.vectors.read(representations.SIGNAL, representations.STAGE.fingerprint(ctx), None)


def scores(ctx, recipe):
    key = method_scores.partition("shapes", composition(ctx.project, ctx.project.recipe(recipe)))
    pointer = ctx.store.require(method_scores.TABLE, key)
    return ctx.store.read(pointer).to_pylist()


def test_every_stage_runs_once_and_nothing_is_left(driven):
    project, results = driven
    ran = [(result.stage, *result.partition.values()) for result in results]
    assert len(ran) == len(set(ran))
    assert next_steps(project.context(RECIPES), NAMES) == []
    assert estimate(project.context(RECIPES), NAMES, train=False).lines == []


def test_what_is_published_passes_its_checks(driven):
    ctx = driven[0].context(RECIPES)
    for table in ("losses", method_scores.TABLE, "selected_subset"):
        for pointer in ctx.store.pointers(table):
            assert all(outcome.passed for outcome in check_published(ctx, pointer)), pointer.key


def test_base_losses_have_three_conditions_and_text_rows_no_image(driven):
    ctx = driven[0].context(RECIPES)
    found = [
        row
        for shard in dataset_shards(ctx, "shapes")
        for row in ctx.store.read_partition("losses", base_losses.partition(ctx, shard)).to_pylist()
    ]
    counts = {c: sum(r["condition"] == c for r in found) for c in ("full", "no_question", "no_image")}
    assert counts == {"full": N_ROWS + N_TEXT, "no_question": N_ROWS + N_TEXT, "no_image": N_ROWS}
    assert all(r["loss_mean"] > 0 and r["entropy_mean"] > 0 and r["el2n_mean"] > 0 for r in found)


def test_rows_with_images_are_represented(driven):
    ctx = driven[0].context(RECIPES)
    ids, vectors = vectors_of(ctx)
    assert len(ids) == N_ROWS
    assert np.isfinite(vectors).all()


def test_two_options_of_a_score_are_two_states_of_its_table(driven):
    ctx = driven[0].context(RECIPES)
    low, high = scores(ctx, "low"), scores(ctx, "high")
    assert [r["value"] for r in low] == [-r["value"] for r in high]
    assert all(json.loads(r["details"])["perplexity"] > 1 for r in low)


def test_text_rows_have_no_score_where_it_needs_an_image(driven):
    ctx = driven[0].context(RECIPES)
    missing = {r["image_id"] for r in scores(ctx, "visnec") if r["value"] is None}
    assert missing == {None}
    assert sum(r["value"] is None for r in scores(ctx, "scalselect")) == N_TEXT


def test_the_best_scores_are_selected(driven):
    ctx = driven[0].context(RECIPES)
    chosen = ctx.store.read_partition("selected_subset", {"recipe": "low"}).to_pylist()
    best = sorted(scores(ctx, "low"), key=lambda r: (-r["value"], r["sample_id"]))[:10]
    assert [r["sample_id"] for r in chosen] == [r["sample_id"] for r in best]
    by_stratum = ctx.store.read_partition("selected_subset", {"recipe": "scalselect"})["stratum"].to_pylist()
    assert by_stratum.count("text") == 1  # 6 of 96 rows, of 20 places


def test_a_selection_is_replayed_from_its_manifest(driven, tmp_path):
    ctx = driven[0].context(RECIPES)
    for name in NAMES:
        pointer = ctx.store.require("selection", {"recipe": name})
        path = next(file.path for file in pointer.files if file.path.endswith("manifest.json"))
        (tmp_path / f"{name}.json").write_bytes(ctx.store.files.read(path))
        assert replay_manifest(ctx, tmp_path / f"{name}.json").rows == pointer_rows(ctx, name)


def pointer_rows(ctx, name):
    return ctx.store.require("selected_subset", {"recipe": name}).rows


def test_a_row_is_explained_by_its_place(driven):
    ctx = driven[0].context(RECIPES)
    chosen = ctx.store.read_partition("selected_subset", {"recipe": "low"})["sample_id"].to_pylist()
    first = explain_row(ctx, "low", chosen[0])
    assert first.selected
    assert first.facts["place by score"] == 1
    assert "place 1 of 96" in first.sentences[0]
    out = explain_row(ctx, "low", next(r["sample_id"] for r in scores(ctx, "low") if r["sample_id"] not in chosen))
    assert "It would be in with" in out.sentences[0]
    drawn = explain_row(ctx, "high", chosen[0])
    assert "diversity rule gumbel" in drawn.sentences[0]
    text = next(r["sample_id"] for r in scores(ctx, "visnec") if r["value"] is None)
    assert "stratum of their own" in explain_row(ctx, "visnec", text).sentences[0]


def test_signals_are_aligned_with_the_rows(driven):
    ctx = driven[0].context(RECIPES)
    manifest = ctx.store.require("manifest", {"dataset": "shapes"})
    signals = StoreSignals(ctx, [manifest, *need_pointers(ctx, "shapes", ["base_losses", "vision_representations"])])
    assert signals.sample_ids == sorted(signals.sample_ids)
    assert sum(image is None for image in signals.image_ids) == N_TEXT
    assert (signals.n_characters > 0).all()
    full, blind = signals.losses("full"), signals.losses("no_image")
    assert np.isfinite(full.mean).all()
    assert np.isnan(blind.mean).sum() == N_TEXT
    np.testing.assert_allclose(full.sum / full.n_tokens, full.mean)
    index, matrix = signals.vectors("vision_representations")
    assert (index >= 0).sum() == len(matrix) == N_ROWS
    seen = np.full((len(index), matrix.shape[1]), np.nan)
    for rows, block in signals.blocks("vision_representations"):
        seen[rows] = block
    np.testing.assert_array_equal(seen[index >= 0], matrix[index[index >= 0]])
    with pytest.raises(NotMaterializedError, match="image_embeddings is not among the signals"):
        signals.vectors("image_embeddings")


def test_new_and_removed_rows_update_the_moments_exactly(make_project):
    project = make_project("moments")
    project.drive(["scalselect"], RECIPES)
    rows = small_rows()
    project.write([*rows[3:], row(300), row(301), text_row(77)])
    results = {result.stage: result for result in project.drive(["scalselect"], RECIPES)}
    ctx = project.context(RECIPES)
    assert results["representation_moments"].computed == 5  # two came, three went
    assert results["vision_representations"].computed == 2
    pointer = ctx.store.require(moments.SIGNAL, moments.partition(ctx, "shapes"))
    found = moments.read_moments(ctx, pointer)
    manifest = ctx.store.read_partition("manifest", {"dataset": "shapes"})["sample_id"].to_pylist()
    ids, vectors = vectors_of(ctx)
    expected = moments_of([vectors[[i for i, name in enumerate(ids) if name in set(manifest)]]])
    assert found.n == expected.n == N_ROWS - 1
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.scatter, expected.scatter, rtol=1e-9, atol=1e-9)


def test_moments_need_rows_with_images(make_project):
    project = make_project("texts")
    project.write([text_row(i) for i in range(4)])
    with pytest.raises(SelectionError, match="0 rows have a representation"):
        project.drive(["scalselect"], RECIPES)


@pytest.mark.parametrize(
    ("changes", "stage"),
    [
        ({"signals.attention_share": 0.5}, "vision_representations"),
        ({"vlm.max_tokens": 200}, "base_losses"),
        ({"recipes.low.options": {"prefer": "middle"}}, "perplexity_scores"),
        ({"recipes.low.budget": {"rows": 11}}, "selected_subset"),
        ({"recipes.high.options": {"temperature": 1.0}}, "selected_subset"),
    ],
)
def test_a_changed_setting_makes_its_stage_stale(driven, changes, stage):
    steps = next_steps(driven[0].context(RECIPES | changes), NAMES)
    assert {step.asset for step in steps} == {stage}


def test_the_dry_run_counts_what_methods_need(make_project):
    project = make_project("dry")
    project.drive(["low"], RECIPES)
    lines = {line.stage: line for line in estimate(project.context(RECIPES), NAMES, train=False).lines}
    assert "base_losses" not in lines
    assert lines["vision_representations"].rows == N_ROWS
    assert lines["representation_moments"].rows == N_ROWS + N_TEXT
    assert {"scalselect_scores", "visnec_scores", "selected_subset"} <= set(lines)


def test_a_score_of_the_wrong_shape_is_refused(driven):
    ctx = driven[0].context(RECIPES)
    (method,) = method_scores.variants(ctx, "visnec", "shapes")
    signals = StoreSignals(ctx, method_scores.source_pointers(ctx, "shapes", method))
    n = len(signals.sample_ids)
    for found in (
        method_scores.ScoreTable(np.zeros(n - 1)),
        method_scores.ScoreTable(np.zeros(n), {"other": np.zeros(n)}),
    ):
        with pytest.raises(SelectionError, match="score visnec"):
            method_scores.score_table(signals, method, found)


def test_lineage_names_the_states_that_were_read(driven):
    ctx = driven[0].context(RECIPES)
    pointer = ctx.store.require("selected_subset", {"recipe": "scalselect"})
    tables = {read_version(ctx.store.files, *parse_reference(r)).table for r in pointer.inputs}
    assert tables == {"manifest", method_scores.TABLE, "samples"}
    assert isinstance(ctx.store.read(pointer), pa.Table)
