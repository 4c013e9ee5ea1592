"""Representations of a shard: rows with images alone, each once, resumable, failures told."""

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from small_project import row, text_row

from vsel_platform.errors import NotMaterializedError
from vsel_platform.models.load import load_vlm
from vsel_platform.pipeline import representations, vector_stage
from vsel_platform.pipeline.lookup import dataset_shards
from vsel_platform.pipeline.parts import PartLog
from vsel_platform.pipeline.training_rows import image_provider, shard_rows
from vsel_platform.signals import vision_representations as signal
from vsel_platform.signals import windows

STAGE = representations.STAGE


@pytest.fixture(scope="module")
def ingested(make_project):
    """A project whose rows are stored, without signals. Each test takes another share of attention."""
    project = make_project("ingested")
    project.drive(["random"])
    return project


@pytest.fixture
def seen(monkeypatch):
    """Rows that were given to the model."""
    rows = []
    real = signal.vision_representations

    def watched(model, given, images, **options):
        rows.extend(value.sample_id for value in given)
        return real(model, given, images, **options)

    monkeypatch.setattr(signal, "vision_representations", watched)
    return rows


def with_share(project, share):
    return project.context({"signals.attention_share": share})


def stored(ctx, shard):
    ids, vectors = ctx.vectors.read(STAGE.signal, STAGE.fingerprint(ctx), representations.rows_with_images(ctx, shard))
    return dict(zip(ids, vectors, strict=True))


def assert_of_model(ctx, shard, found):
    """The vectors of a shard are those that the model gives to all rows at once."""
    model, share = load_vlm(ctx.project.vlm, "cpu"), ctx.project.signals.attention_share
    rows = shard_rows(ctx, shard, sorted(found))
    for batch in signal.vision_representations(model, rows, image_provider(ctx), threshold=share):
        for value in batch.values:
            np.testing.assert_allclose(found[value.sample_id], value.vector, atol=1e-5)


def failures(ctx, shard):
    key = {"signal": STAGE.signal, **STAGE.partition(ctx, shard)}
    return ctx.store.read_partition("signal_failures", key).to_pylist()


def test_rows_with_an_image_are_wanted_and_no_others(ingested):
    ctx = ingested.context()
    shards = dataset_shards(ctx, "shapes")
    wanted = [i for shard in shards for i in representations.rows_with_images(ctx, shard)]
    manifest = ctx.store.read_partition("manifest", {"dataset": "shapes"}).to_pylist()
    assert sorted(wanted) == sorted(r["sample_id"] for r in manifest if r["task"] != "text")


def test_vectors_are_those_of_the_model_and_a_second_run_makes_none(ingested, seen):
    ctx = with_share(ingested, 0.8)
    shard = dataset_shards(ctx, "shapes")[-1]  # the one with the text-only rows
    wanted = representations.rows_with_images(ctx, shard)
    assert not STAGE.is_current(ctx, shard)
    result = representations.run(ctx, shard)
    assert (result.rows, result.computed, result.reused, result.failed) == (len(wanted), len(wanted), 0, 0)
    assert STAGE.is_current(ctx, shard)
    assert failures(ctx, shard) == []
    assert_of_model(ctx, shard, stored(ctx, shard))
    seen.clear()
    again = representations.run(ctx, shard)
    assert seen == []
    assert (again.computed, again.reused, again.data_version) == (0, len(wanted), result.data_version)


def test_a_shard_without_images_has_no_vector_and_loads_no_model(make_project, monkeypatch):
    monkeypatch.setattr("vsel_platform.models.load.load_vlm", lambda *_: pytest.fail("a model was loaded"))
    project = make_project("texts")
    project.write([text_row(i) for i in range(5)])
    project.drive(["random"])
    ctx = project.context()
    (shard,) = dataset_shards(ctx, "shapes")
    result = representations.run(ctx, shard)
    assert (result.rows, result.computed, result.metadata) == (0, 0, {"dimension": 0})
    assert STAGE.is_current(ctx, shard)


def test_a_killed_run_goes_on_behind_its_finished_windows(ingested, seen, monkeypatch):
    monkeypatch.setattr(windows, "WindowOptions", partial(windows.WindowOptions, window_rows=8))
    monkeypatch.setattr(vector_stage, "PART_ROWS", 8)
    ctx = with_share(ingested, 0.7)
    shard = dataset_shards(ctx, "shapes")[0]
    save, saved = PartLog.save, []

    def killed(self, table):
        save(self, table)
        saved.extend(table["id"].to_pylist())
        if len(saved) >= 16:
            raise KeyboardInterrupt

    monkeypatch.setattr(PartLog, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        representations.run(ctx, shard)
    assert not STAGE.is_current(ctx, shard)
    assert ctx.vectors.existing_ids(STAGE.signal, STAGE.fingerprint(ctx), saved) == set()
    monkeypatch.setattr(PartLog, "save", save)
    seen.clear()
    result = representations.run(ctx, shard)
    assert not set(seen) & set(saved)
    assert set(seen) | set(saved) == set(representations.rows_with_images(ctx, shard)) == set(stored(ctx, shard))
    assert result.rows == len(seen) + len(saved)
    assert not list(ctx.store.files.list("work"))
    assert_of_model(ctx, shard, stored(ctx, shard))


def test_a_row_whose_image_is_gone_is_a_reported_failure_and_mended_with_it(ingested, tmp_path):
    ctx = with_share(ingested, 0.6)
    shard = dataset_shards(ctx, "shapes")[0]
    image = ctx.store.read_partition("images", {"shard": shard}, ["image_id", "path"]).to_pylist()[0]
    samples = ctx.store.read_partition("samples", {"shard": shard}, ["sample_id", "image_ids"]).to_pylist()
    shown = {r["sample_id"] for r in samples if image["image_id"] in r["image_ids"]}
    aside = tmp_path / "aside.png"
    shutil.move(image["path"], aside)
    try:
        result = representations.run(ctx, shard)
    finally:
        shutil.move(aside, Path(image["path"]))
    assert result.failed == len(shown) > 0
    assert {(r["content_id"], r["reason"]) for r in failures(ctx, shard)} == {(i, "image_missing") for i in shown}
    assert not shown & stored(ctx, shard).keys()
    result = representations.run(ctx, shard)
    assert (result.computed, result.failed) == (len(shown), 0)
    assert failures(ctx, shard) == []
    assert shown <= stored(ctx, shard).keys()


def test_new_rows_cost_only_themselves(make_project, seen):
    project = make_project("growing")
    project.write([row(i) for i in range(12)])
    project.drive(["random"])
    ctx = project.context()
    for shard in dataset_shards(ctx, "shapes"):
        representations.run(ctx, shard)
    before = {i: v for shard in dataset_shards(ctx, "shapes") for i, v in stored(ctx, shard).items()}
    seen.clear()
    project.write([*(row(i) for i in range(3, 14)), text_row(1)])
    project.drive(["random"])
    ctx = project.context()
    for shard in dataset_shards(ctx, "shapes"):
        representations.run(ctx, shard)
    assert len(seen) == 2
    after = {i: v for shard in dataset_shards(ctx, "shapes") for i, v in stored(ctx, shard).items()}
    assert all((after[i] == v).all() for i, v in before.items() if i in after)


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"signals.attention_share": 0.5}, False),
        ({"vlm.max_tokens": 99}, False),
        ({"vlm.dtype": "bfloat16"}, False),
        ({"vlm.batch_tokens": 99}, True),
        ({"signals.answer_tokens": 9}, True),
        ({"compute.device": "cuda"}, True),
    ],
)
def test_the_vectors_belong_to_the_model_and_the_share_of_attention(ingested, changes, same):
    plain, changed = ingested.context(), ingested.context(changes)
    assert (STAGE.fingerprint(plain) == STAGE.fingerprint(changed)) is same


def test_a_shard_that_is_not_stored_is_named(ingested):
    with pytest.raises(NotMaterializedError, match="samples of shard nowhere"):
        representations.run(ingested.context(), "nowhere")
