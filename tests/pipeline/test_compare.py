"""Comparing selections: facts of stored rows, who is compared, and when the stored comparison is stale."""

from itertools import combinations

import pytest
from small_project import row, small_rows, text_row

from vsel_platform.errors import ConfigError, NotMaterializedError, SelectionError
from vsel_platform.pipeline import compare, embeddings
from vsel_platform.pipeline.lookup import dataset_shards
from vsel_platform.pipeline.models import vlm_fingerprint
from vsel_platform.pipeline.plan import next_steps
from vsel_platform.pipeline.quality import check_published
from vsel_platform.pipeline.timing import record_rate
from vsel_platform.pipeline.tokens import token_counts
from vsel_platform.storage.pointers import parse_reference, read_version

ROW = {"dataset": "shapes", "budget": {"rows": 20}}
TYPICAL = {"method": "compose", "score": "prototypicality", "options": {"prefer": "typical"}}
RANDOM = {
    "drawn": ROW | {"method": "random"},
    "again": ROW | {"method": "random", "seed": 5, "budget": {"rows": 30}},
}
RECIPES = {
    "recipes": {**RANDOM, "atypical": ROW | {"method": "compose", "score": "prototypicality"}, "typical": ROW | TYPICAL}
}
NAMES = sorted(RECIPES["recipes"])  # as the project file is written
N_ROWS = 96


@pytest.fixture(scope="module")
def driven(make_project):
    """A project with four selections, driven to the end once. Nothing may change it."""
    project = make_project("compared")
    return project, project.drive(NAMES, RECIPES)


@pytest.fixture(scope="module")
def ctx(driven):
    return driven[0].context(RECIPES)


@pytest.fixture(scope="module")
def tables(ctx):
    """(rows by recipe, pairs by names) as they are stored."""
    recipes = ctx.store.read_partition(compare.RECIPES_TABLE, {"dataset": "shapes"}).to_pylist()
    pairs = ctx.store.read_partition(compare.PAIRS_TABLE, {"dataset": "shapes"}).to_pylist()
    return {r["recipe"]: r for r in recipes}, {(p["recipe"], p["other"]): p for p in pairs}


def ids_of(ctx, recipe):
    return ctx.store.read_partition("selected_subset", {"recipe": recipe}, ["sample_id"])["sample_id"].to_pylist()


def samples_of(ctx):
    return {
        r["sample_id"]: r
        for shard in dataset_shards(ctx, "shapes")
        for r in ctx.store.read_partition("samples", {"shard": shard}).to_pylist()
    }


def test_all_recipes_are_compared_once_when_the_last_has_selected(driven, ctx):
    (result,) = [result for result in driven[1] if result.stage == compare.STAGE]
    assert result.rows == len(NAMES)
    assert driven[1][-1] is result
    assert next_steps(ctx, NAMES) == []
    assert compare.is_current(ctx, "shapes")


def test_facts_are_those_of_the_selected_rows(ctx, tables):
    manifest = ctx.store.require("manifest", {"dataset": "shapes"})
    tokens, samples = token_counts(ctx, manifest), samples_of(ctx)
    tasks = {r["sample_id"]: r["task"] for r in ctx.store.read(manifest).to_pylist()}
    n_images = len({i for sample in samples.values() for i in sample["image_ids"]})
    for name in NAMES:
        ids, found = ids_of(ctx, name), tables[0][name]
        shown = [samples[i]["image_ids"][0] for i in ids if samples[i]["image_ids"]]
        assert found["rows"] == len(ids) == (30 if name == "again" else 20)
        assert found["task_coverage"] == len({tasks[i] for i in ids}) / len(set(tasks.values()))
        assert found["image_coverage"] == pytest.approx(len(set(shown)) / n_images)
        assert found["repeated_images"] == len(shown) - len(set(shown))
        assert found["tokens"] == sum(tokens[i] for i in ids)
        assert found["training_tokens"] == found["tokens"] * ctx.project.training.lora.epochs
        assert 0 < found["cluster_coverage"] < 1


def test_the_random_range_is_that_of_selections_of_the_same_size(tables):
    for found in tables[0].values():
        for name in compare.BANDED:
            assert found[f"{name}_random_low"] <= found[f"{name}_random_high"]
        assert 0 <= found["overlap_with_random"] <= 1
    small, large = tables[0]["drawn"], tables[0]["again"]
    assert small["tokens_random_high"] < large["tokens_random_low"]
    assert small["tokens_random_low"] == tables[0]["typical"]["tokens_random_low"]


def test_every_pair_stands_once_with_what_it_shares(ctx, tables):
    assert list(tables[1]) == list(combinations(NAMES, 2))
    for (a, b), pair in tables[1].items():
        first, second = set(ids_of(ctx, a)), set(ids_of(ctx, b))
        assert pair["shared_rows"] == len(first & second)
        assert pair["jaccard"] == pytest.approx(len(first & second) / len(first | second))


def test_scores_are_correlated_where_both_have_one(tables):
    correlations = {names: pair["rank_correlation"] for names, pair in tables[1].items()}
    assert correlations.pop(("atypical", "typical")) == pytest.approx(-1)
    assert set(correlations.values()) == {None}


def test_what_is_published_passes_its_checks_and_names_what_was_read(ctx):
    for table in (compare.RECIPES_TABLE, compare.PAIRS_TABLE):
        pointer = ctx.store.require(table, {"dataset": "shapes"})
        assert all(outcome.passed for outcome in check_published(ctx, pointer))
        read = {read_version(ctx.store.files, *parse_reference(r)).table for r in pointer.inputs}
        assert read == {"manifest", "samples", "selected_subset", "image_embeddings", "method_scores"}


def test_the_page_is_published_with_every_recipe(ctx):
    pointer = ctx.store.require(compare.PAGE, {"dataset": "shapes"})
    (file,) = pointer.files
    page = ctx.store.files.read(file.path).decode()
    assert all(f"<td>{name}</td>" in page for name in NAMES)


def test_a_second_run_changes_nothing(ctx):
    before = [ctx.store.require(t, {"dataset": "shapes"}).data_version for t in ("compared_recipes", "compared_pairs")]
    result = compare.run(ctx, "shapes")
    after = [ctx.store.require(t, {"dataset": "shapes"}).data_version for t in ("compared_recipes", "compared_pairs")]
    assert before == after
    assert all(version in result.data_version for version in after)


@pytest.mark.parametrize(
    ("changes", "stale"),
    [
        ({"training.lora.epochs": 3}, {"method_comparison"}),
        ({"vlm.revision": "abc"}, {"method_comparison"}),
        ({"recipes.drawn.seed": 9}, {"selected_subset"}),
        ({"recipes.typical.options": {}}, {"selected_subset"}),
        ({"vlm.batch_tokens": 999}, set()),
        ({"training.lora.learning_rate": 0.5}, set()),
        ({"recipes.later": ROW | {"method": "random", "seed": 77}}, set()),
    ],
)
def test_a_changed_setting_makes_its_stage_stale_and_no_other(driven, changes, stale):
    assert {step.asset for step in next_steps(driven[0].context(RECIPES | changes), NAMES)} == stale


def test_a_part_of_the_recipes_can_be_compared_in_any_order(ctx):
    found = compare.compare(ctx, "shapes", ["typical", "drawn", "typical"])
    assert found.recipes == ["typical", "drawn"]
    assert [(p["recipe"], p["other"]) for p in found.pairs] == [("typical", "drawn")]
    ids = [found.pool.sample_ids[i] for i in found.selected["typical"].tolist()]
    assert ids == ids_of(ctx, "typical")  # in the order of their ranks


def test_who_cannot_be_compared_is_named(driven, ctx):
    with pytest.raises(SelectionError, match="at least two recipes of dataset shapes; got drawn"):
        compare.compare(ctx, "shapes", ["drawn", "drawn"])
    with pytest.raises(SelectionError, match="got none"):
        compare.compare(ctx, "shapes", [])
    with pytest.raises(ConfigError, match="nobody"):
        compare.compare(ctx, "shapes", ["drawn", "nobody"])
    later = driven[0].context(RECIPES | {"recipes.later": ROW | {"method": "random"}})
    with pytest.raises(NotMaterializedError, match="selected_subset of recipe later has not been materialized"):
        compare.compare(later, "shapes", ["drawn", "later"])
    assert compare.compared_recipes(later, "shapes") == NAMES
    values = driven[0].values["datasets"]["shapes"]
    other = driven[0].context(RECIPES | {"datasets.spare": values, "recipes.far": ROW | {"dataset": "spare"}})
    with pytest.raises(SelectionError, match="of which far select from another dataset"):
        compare.compare(other, "shapes", ["drawn", "far"])


def test_hours_are_told_when_a_fine_tuning_ran(ctx):
    assert compare.training_hours(ctx, 100) is None
    record_rate(ctx, "finetuned_checkpoint", vlm_fingerprint(ctx.project.vlm), 1000, 3600.0)
    assert compare.training_hours(ctx, 500) == pytest.approx(0.5 * ctx.project.training.lora.epochs)


def test_without_embeddings_no_cluster_is_known_and_later_ones_make_it_stale(make_project):
    project = make_project("plain")
    recipes = {"recipes": RANDOM}
    project.drive(list(RANDOM), recipes)
    ctx = project.context(recipes)
    assert (compare.compare(ctx, "shapes", list(RANDOM)).pool.clusters == -1).all()
    assert compare.is_current(ctx, "shapes")
    for shard in dataset_shards(ctx, "shapes"):
        embeddings.run(ctx, shard)
    assert {step.asset for step in next_steps(ctx, list(RANDOM))} == {compare.STAGE}
    compare.run(ctx, "shapes")
    assert next_steps(ctx, list(RANDOM)) == []


def test_a_shard_without_images_hides_no_cluster(make_project):
    project = make_project("texts")
    project.write([*(row(i) for i in range(40)), *(text_row(i) for i in range(45))])
    recipes = {"recipes": {"drawn": RANDOM["drawn"], "near": ROW | TYPICAL}}
    project.drive(["drawn", "near"], recipes)
    ctx = project.context(recipes)
    rows = [
        ctx.store.require("image_embeddings", embeddings.partition(ctx, s)).rows for s in dataset_shards(ctx, "shapes")
    ]
    assert 0 in rows
    found = compare.compare(ctx, "shapes", ["drawn", "near"])
    assert (found.pool.clusters >= 0).sum() == 40
    assert all(r["cluster_coverage"] > 0 for r in found.rows)


def test_a_selection_whose_rows_left_waits_until_it_selects_again(make_project):
    project = make_project("leaving")
    recipes = {"recipes": {"drawn": RANDOM["drawn"], "all": ROW | {"method": "random", "budget": {"percent": 100}}}}
    project.drive(["drawn", "all"], recipes)
    ctx = project.context(recipes)
    chosen = set(ids_of(ctx, "drawn"))
    manifest = ctx.store.read_partition("manifest", {"dataset": "shapes"}).to_pylist()
    keep = {r["position"] for r in manifest if r["sample_id"] in chosen} | set(range(60))
    assert len(keep) < N_ROWS
    project.write([r for i, r in enumerate(small_rows()) if i in keep or i >= N_ROWS])
    project.drive(["drawn"], recipes)
    ctx = project.context(recipes)
    assert compare.compared_recipes(ctx, "shapes") == ["drawn"]
    with pytest.raises(NotMaterializedError, match=r"recipe all: \d+ selected rows are gone from shapes; select again"):
        compare.compare(ctx, "shapes", ["drawn", "all"])
    project.drive(["drawn", "all"], recipes)
    assert compare.compared_recipes(ctx, "shapes") == ["all", "drawn"]
    assert compare.is_current(ctx, "shapes")
    # No recipe needs embeddings, so there are no clusters to cover: NULL, not zero.
    table = ctx.store.read_partition("compared_recipes", {"dataset": "shapes"})
    assert set(table["cluster_coverage"].to_pylist() + table["cluster_coverage_random_low"].to_pylist()) == {None}
    assert None not in table["image_coverage"].to_pylist()
