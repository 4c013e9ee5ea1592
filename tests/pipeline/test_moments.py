"""Moments of representations: exact after any change, counted anew where that is cheaper or safer."""

import io
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_project import row, text_row

from vsel_platform.errors import NotMaterializedError, SelectionError, StorageError
from vsel_platform.identity import hash_ids
from vsel_platform.pipeline import moments, representations
from vsel_platform.pipeline.lookup import dataset_shards, distinct_contents
from vsel_platform.pipeline.needs import need_pointers
from vsel_platform.pipeline.vector_stage import VectorBatch
from vsel_platform.selection.leverage import moments_of

D = 7


def vector(sample):
    """A vector that belongs to an id."""
    seed = int(hash_ids([sample]), 16) % 2**32
    return np.random.default_rng(seed).normal(size=D).astype(np.float32) + 2


def compute(ctx, shard, ids):
    yield VectorBatch(ids, [vector(i) for i in ids])


STAGE = replace(representations.STAGE, compute=compute)


@pytest.fixture(scope="module")
def project(make_project):
    """A project without rows; each test writes its own."""
    return make_project("moved")


def stored(project, rows):
    """The rows in the store with made-up vectors; the context to go on with."""
    project.write(rows)
    project.drive(["random"])
    ctx = project.context()
    for shard in dataset_shards(ctx, "shapes"):
        if not STAGE.is_current(ctx, shard):
            STAGE.run(ctx, shard)
    return ctx


def rows(*numbers, texts=2):
    return [*(row(i) for i in numbers), *(text_row(i) for i in range(texts))]


def matrix(ctx):
    """Vectors of the present rows with an image."""
    shown = [i for shard in dataset_shards(ctx, "shapes") for i in representations.rows_with_images(ctx, shard)]
    present = {content.sample_id for content in distinct_contents(ctx, "shapes")[1]}
    return np.array([vector(i) for i in sorted(present & set(shown))])


def found(ctx):
    pointer = ctx.store.require(moments.SIGNAL, moments.partition(ctx, "shapes"))
    return moments.read_moments(ctx, pointer)


def assert_exact(ctx):
    expected, own = moments_of([matrix(ctx)]), found(ctx)
    assert own.n == expected.n == len(matrix(ctx))
    np.testing.assert_allclose(own.mean, expected.mean, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(own.scatter, expected.scatter, rtol=1e-9, atol=1e-9)


def test_every_row_with_an_image_counts_once(project):
    ctx = stored(project, rows(*range(20)))
    result = moments.run(ctx, "shapes")
    assert (result.rows, result.computed, result.reused) == (20, 20, 0)
    assert result.metadata == {"dimension": D}
    assert_exact(ctx)
    assert moments.is_current(ctx, "shapes")
    pointer = ctx.store.require(moments.SIGNAL, moments.partition(ctx, "shapes"))
    path = next(file.path for file in pointer.files if file.path.endswith(moments.IDS_FILE))
    ids = pq.read_table(io.BytesIO(ctx.store.files.read(path)))["sample_id"].to_pylist()
    assert ids == sorted(ids)
    assert len(ids) == pointer.metadata["rows"] == 20


def test_a_second_run_reads_no_vector(project, monkeypatch):
    ctx = stored(project, rows(*range(20)))
    first = moments.run(ctx, "shapes")
    monkeypatch.setattr(moments, "moments_of", lambda blocks: pytest.fail("vectors were read"))
    again = moments.run(ctx, "shapes")
    assert (again.computed, again.reused) == (0, 20)
    assert again.data_version == first.data_version


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sets(st.integers(0, 24), min_size=2), min_size=2, max_size=3))
def test_whatever_comes_and_goes_the_moments_are_those_of_the_rows(project, states):
    before = None
    for state in states:
        ctx = stored(project, rows(*state))
        result = moments.run(ctx, "shapes")
        assert_exact(ctx)
        if before is not None:
            came, went = state - before, before - state
            few = len(came) + len(went) <= moments.MAX_CHANGE * len(before & state)
            gone = bool(went) and result.computed == len(state)  # vectors of rows that went may be gone
            assert result.computed == (len(came) + len(went) if few and not gone else len(state))
        before = state


def test_rows_that_only_others_shards_changed_cost_themselves(project):
    moments.run(stored(project, rows(*range(30))), "shapes")
    ctx = stored(project, rows(*range(33)))
    assert not moments.is_current(ctx, "shapes")
    result = moments.run(ctx, "shapes")
    assert (result.computed, result.reused) == (3, 30)
    assert_exact(ctx)


def test_many_changes_are_counted_anew(project):
    moments.run(stored(project, rows(*range(20))), "shapes")
    ctx = stored(project, rows(*range(12, 40)))
    assert moments.run(ctx, "shapes").computed == 28
    assert_exact(ctx)


def test_rows_whose_vectors_are_gone_make_it_count_anew(project, monkeypatch):
    moments.run(stored(project, rows(*range(20))), "shapes")
    ctx = stored(project, rows(*range(19)))
    there = ctx.vectors.existing_ids
    present = {content.sample_id for content in distinct_contents(ctx, "shapes")[1]}
    monkeypatch.setattr(ctx.vectors, "existing_ids", lambda s, f, ids: there(s, f, set(ids) & present))
    result = moments.run(ctx, "shapes")
    assert (result.computed, result.reused) == (19, 0)
    assert_exact(ctx)


def test_moments_of_an_older_code_are_no_base_to_go_on_from(project, monkeypatch):
    ctx = stored(project, rows(*range(20)))
    moments.run(ctx, "shapes")
    monkeypatch.setattr(moments, "MOMENTS_CODE", "representation_moments-next")
    assert not moments.is_current(ctx, "shapes")
    assert moments.run(ctx, "shapes").computed == 20
    assert moments.run(ctx, "shapes").computed == 0


def test_another_share_of_attention_has_moments_of_its_own(project):
    ctx = stored(project, rows(*range(20)))
    moments.run(ctx, "shapes")
    other = project.context({"signals.attention_share": 0.5})
    assert moments.partition(other, "shapes") != moments.partition(ctx, "shapes")
    assert not moments.is_current(other, "shapes")
    with pytest.raises(NotMaterializedError, match="vision_representations"):
        moments.run(other, "shapes")
    assert moments.is_current(project.context({"vlm.batch_tokens": 7}), "shapes")


def test_a_method_does_not_get_moments_of_rows_that_have_changed(project):
    ctx = stored(project, rows(*range(20)))
    moments.run(ctx, "shapes")
    assert any(p.table == moments.SIGNAL for p in need_pointers(ctx, "shapes", ["representation_moments"]))
    ctx = stored(project, rows(*range(21)))
    with pytest.raises(NotMaterializedError, match="not of its present rows"):
        need_pointers(ctx, "shapes", ["representation_moments"])


def test_lineage_names_the_dataset_and_every_shard(project):
    ctx = stored(project, rows(*range(45)))
    moments.run(ctx, "shapes")
    pointer = ctx.store.require(moments.SIGNAL, moments.partition(ctx, "shapes"))
    expected = [ctx.store.require("manifest", {"dataset": "shapes"}).reference]
    for shard in dataset_shards(ctx, "shapes"):
        expected.append(ctx.store.require(representations.SIGNAL, STAGE.partition(ctx, shard)).reference)
    assert len(expected) > 2
    assert pointer.inputs == sorted(expected)


@pytest.mark.parametrize("numbers", [(), (3,)])
def test_fewer_than_two_rows_with_images_are_refused(project, numbers):
    ctx = stored(project, rows(*numbers, texts=5))
    with pytest.raises(SelectionError, match=f"dataset shapes: {len(numbers)} rows have a representation"):
        moments.run(ctx, "shapes")


def test_before_anything_is_stored_the_missing_state_is_named(make_project):
    project = make_project("bare")
    with pytest.raises(NotMaterializedError, match="manifest"):
        moments.run(project.context(), "shapes")
    project.drive(["random"])
    with pytest.raises(NotMaterializedError, match="vision_representations"):
        moments.run(project.context(), "shapes")


def test_a_damaged_file_is_said_to_be_one(project):
    ctx = stored(project, rows(*range(20)))
    moments.run(ctx, "shapes")
    pointer = ctx.store.require(moments.SIGNAL, moments.partition(ctx, "shapes"))
    path = next(file.path for file in pointer.files if file.path.endswith(moments.MOMENTS_FILE))
    whole = ctx.store.files.read(path)
    ctx.store.files.write(path, whole[: len(whole) // 2])
    with pytest.raises(StorageError, match="compute the moments again"):
        found(ctx)
    ctx.store.files.write(path, whole)
