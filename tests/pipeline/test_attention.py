"""Attention maps of two models through the whole store, and Free2DS on them: once per row, resumable, replayed."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from free2ds_project import free2ds_settings
from small_project import row, small_rows, text_row

from vsel_platform.errors import ConfigError, NotMaterializedError
from vsel_platform.methods.free2ds_scores import ious
from vsel_platform.methods.registry import composition
from vsel_platform.pipeline import attention, method_scores
from vsel_platform.pipeline.lookup import dataset_shards
from vsel_platform.pipeline.method_signals import StoreSignals
from vsel_platform.pipeline.needs import need_pointers
from vsel_platform.pipeline.parts import PartLog
from vsel_platform.pipeline.plan import next_steps
from vsel_platform.pipeline.quality import check_published
from vsel_platform.pipeline.verify import replay_manifest
from vsel_platform.signals import windows
from vsel_platform.storage.pointers import partition_key

N_ROWS, N_TEXT = 90, 6
NAMES = ["free2ds", "released"]


@pytest.fixture(scope="module")
def settings(models):
    return free2ds_settings(models)


@pytest.fixture(scope="module")
def driven(make_project, settings):
    """A project with Free2DS in both modes, driven to the end once. Nothing may change it."""
    project = make_project("free2ds")
    return project, project.drive(NAMES, settings)


@pytest.fixture(scope="module")
def ingested(make_project, settings):
    """A project whose rows are in the store, without signals. Each test takes another number of answer tokens."""
    project = make_project("ingested")
    project.drive(["random"])
    return project


def maps(ctx):
    """Stored rows by model and id."""
    return {
        (key["fingerprint"], record["sample_id"]): record
        for shard in dataset_shards(ctx, "shapes")
        for key in attention.partitions(ctx, shard)
        for record in ctx.store.read_partition("attention_maps", key).to_pylist()
    }


def test_every_stage_runs_once_and_nothing_is_left(driven, settings):
    project, results = driven
    ran = [(result.stage, *result.partition.values()) for result in results]
    assert len(ran) == len(set(ran))
    assert next_steps(project.context(settings), NAMES) == []
    stages = {result.stage for result in results}
    assert {"attention_maps", "text_embeddings", "free2ds_scores", "free2ds_released_scores"} <= stages
    by_stage = [result for result in results if result.stage == "attention_maps"]
    assert sum(result.computed + result.failed for result in by_stage) >= 2 * N_ROWS
    assert sum(result.reused for result in by_stage) == 0


def test_every_row_with_an_image_has_a_map_of_each_model_on_the_common_grid(driven, settings):
    found = maps(driven[0].context(settings))
    assert len({model for model, _ in found}) == 2
    assert len(found) == 2 * N_ROWS
    assert {(r["n_tokens"], len(r["top_tokens"])) for r in found.values()} == {(16, 4)}
    assert all(0 < r["mass"] < 1 and 0 <= r["sharpness"] <= 1 for r in found.values())


def test_what_is_published_passes_its_checks(driven, settings):
    ctx = driven[0].context(settings)
    for table in ("attention_maps", "method_scores", "selected_subset"):
        pointers = list(ctx.store.pointers(table))
        assert pointers
        for pointer in pointers:
            assert all(outcome.passed for outcome in check_published(ctx, pointer)), pointer.key


def scores(ctx, recipe):
    key = method_scores.partition("shapes", composition(ctx.project, ctx.project.recipe(recipe)))
    return ctx.store.read(ctx.store.require(method_scores.TABLE, key)).to_pylist()


def test_signals_are_aligned_with_the_rows(driven, settings):
    ctx = driven[0].context(settings)
    manifest = ctx.store.require("manifest", {"dataset": "shapes"})
    signals = StoreSignals(ctx, [manifest, *need_pointers(ctx, "shapes", ["attention_maps", "text_embeddings"])])
    first, second = signals.attention_tops()
    stored = maps(ctx)
    own = attention.partitions(ctx, dataset_shards(ctx, "shapes")[0])
    for tops, key in zip((first, second), own, strict=True):
        for i, sample in enumerate(signals.sample_ids):
            expected = stored.get((key["fingerprint"], sample))
            assert tops.tops[i].tolist() == (expected["top_tokens"] if expected else [])
            assert tops.n_tokens[i] == (16 if expected else 0)
    assert np.isnan(ious(first, second)).sum() == N_TEXT
    rows, places, matrix = signals.question_vectors()
    assert sorted(rows.tolist()) == list(range(N_ROWS + N_TEXT))
    assert (places >= 0).all()
    assert len(matrix) == 3 + N_TEXT  # a question for each task


def test_scores_of_text_rows_have_no_image_part_and_are_best_as_released_alone(driven, settings):
    ctx = driven[0].context(settings)
    for recipe, image_score in (("free2ds", None), ("released", 1.0)):
        details = [(r["image_id"], json.loads(r["details"])) for r in scores(ctx, recipe)]
        assert {d["image_score"] for image, d in details if image is None} == {image_score}
        assert {d["iou"] is None for image, d in details if image is None} == {True}
        assert all(d["iou"] is not None for image, d in details if image is not None)


def test_selections_are_replayed_from_their_manifests(driven, settings, tmp_path):
    ctx = driven[0].context(settings)
    for name in NAMES:
        pointer = ctx.store.require("selection", {"recipe": name})
        path = next(file.path for file in pointer.files if file.path.endswith("manifest.json"))
        (tmp_path / f"{name}.json").write_bytes(ctx.store.files.read(path))
        assert replay_manifest(ctx, tmp_path / f"{name}.json").rows == 20
    chosen = {n: ctx.store.read_partition("selected_subset", {"recipe": n})["sample_id"].to_pylist() for n in NAMES}
    assert chosen["free2ds"] != chosen["released"]


@pytest.mark.parametrize(
    ("changes", "stale"),
    [
        ({"signals.answer_tokens": 5}, {"attention_maps"}),
        ({"signals.attention_grid": 2}, {"attention_maps"}),
        ({"second_vlm.max_tokens": 200}, {"attention_maps"}),
        ({"vlm.max_tokens": 200}, {"attention_maps"}),
        ({"text_encoder.feature": "mean"}, {"text_embeddings"}),
        ({"text_encoder.batch_tokens": 100, "second_vlm.batch_tokens": 100}, set()),
        ({"signals.attention_share": 0.5}, set()),
        ({"recipes.free2ds.options": {"alpha": 0.9}}, {"free2ds_scores"}),
        ({"recipes.released.options": {"temperature": 0.1}}, {"selected_subset"}),
    ],
)
def test_a_changed_setting_makes_its_stage_stale_and_no_other(driven, settings, changes, stale):
    assert {step.asset for step in next_steps(driven[0].context(settings | changes), NAMES)} == stale


def test_new_rows_cost_only_themselves(make_project, settings):
    project = make_project("growing")
    project.drive(["free2ds"], settings)
    before = maps(project.context(settings))
    project.write([*small_rows()[3:], row(300), row(301), text_row(77)])
    results = [r for r in project.drive(["free2ds"], settings) if r.stage == "attention_maps"]
    assert [(r.computed, r.reused, r.failed) for r in results] == [(4, 0, 0)]  # two rows, two models
    after = maps(project.context(settings))
    assert all(after[key] == record for key, record in before.items())
    assert len(after) == len(before) + 4


def test_a_killed_run_goes_on_behind_its_finished_windows(ingested, settings, monkeypatch):
    ctx = ingested.context(settings | {"signals.answer_tokens": 3})
    shard = dataset_shards(ctx, "shapes")[0]
    monkeypatch.setattr(windows, "WindowOptions", partial(windows.WindowOptions, window_rows=8))
    save, saved = PartLog.save, []

    def killed(self, table):
        save(self, table)
        saved.append(table.num_rows)
        if len(saved) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(PartLog, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        attention.run(ctx, shard)
    assert not attention.is_current(ctx, shard)
    monkeypatch.setattr(PartLog, "save", save)
    result = attention.run(ctx, shard)
    assert result.reused == sum(saved) == 16
    assert result.computed + result.reused == 2 * len(attention.rows_with_images(ctx, shard))
    assert attention.is_current(ctx, shard)
    assert not list(ctx.store.files.list("work"))
    killed_and_resumed = stored(ctx, shard)
    for key in attention.partitions(ctx, shard):
        ctx.store.files.delete_tree(f"tables/{partition_key('attention_maps', key)}")
    assert attention.run(ctx, shard).reused == 0
    assert stored(ctx, shard) == killed_and_resumed  # to the last bit


def stored(ctx, shard):
    """Records of a shard, both models."""
    keys = attention.partitions(ctx, shard)
    return [record for key in keys for record in ctx.store.read_partition("attention_maps", key).to_pylist()]


def test_a_row_whose_image_is_gone_is_a_reported_failure_of_both_models_and_mended_with_it(
    ingested, settings, tmp_path
):
    ctx = ingested.context(settings | {"signals.answer_tokens": 2})
    shard = dataset_shards(ctx, "shapes")[0]
    images = ctx.store.read_partition("images", {"shard": shard}, ["image_id", "path"]).to_pylist()
    path, aside = Path(images[0]["path"]), tmp_path / "aside.png"
    shutil.move(path, aside)
    result = attention.run(ctx, shard)
    samples = ctx.store.read_partition("samples", {"shard": shard}, ["sample_id", "image_ids"]).to_pylist()
    shown = [r["sample_id"] for r in samples if images[0]["image_id"] in r["image_ids"]]
    assert result.failed == 2 * len(shown) > 0
    for key in attention.partitions(ctx, shard):
        failures = ctx.store.read_partition("signal_failures", {"signal": "attention_maps", **key}).to_pylist()
        assert {(r["content_id"], r["reason"]) for r in failures} == {(sample, "image_missing") for sample in shown}
    assert not {r["sample_id"] for r in stored(ctx, shard)} & set(shown)
    shutil.move(aside, path)
    result = attention.run(ctx, shard)
    assert (result.computed, result.failed) == (2 * len(shown), 0)
    assert {r["sample_id"] for r in stored(ctx, shard)} >= set(shown)


def test_a_model_beside_itself_answers_once_and_agrees(ingested, settings):
    ctx = ingested.context(settings | {"second_vlm": ingested.values["vlm"], "signals.answer_tokens": 4})
    shard = dataset_shards(ctx, "shapes")[0]
    n_rows = len(attention.rows_with_images(ctx, shard))
    result = attention.run(ctx, shard)
    assert (result.computed, result.reused) == (n_rows, n_rows)
    assert attention.is_current(ctx, shard)
    manifest = ctx.store.require("manifest", {"dataset": "shapes"})
    pointer = ctx.store.require("attention_maps", attention.partitions(ctx, shard)[0])
    first, second = StoreSignals(ctx, [manifest, pointer]).attention_tops()
    assert set(ious(first, second)[first.n_tokens > 0].tolist()) == {1.0}


def test_without_a_second_model_the_project_file_is_to_blame(ingested, settings):
    with pytest.raises(ConfigError, match="name the other one as `second_vlm`"):
        attention.partitions(ingested.context(settings | {"second_vlm": None}), "any")


def test_a_signal_that_the_method_did_not_ask_for_is_refused(driven, settings):
    ctx = driven[0].context(settings)
    signals = StoreSignals(ctx, [ctx.store.require("manifest", {"dataset": "shapes"})])
    with pytest.raises(NotMaterializedError, match="attention_maps is not among the signals"):
        signals.attention_tops()
