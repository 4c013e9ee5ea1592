import numpy as np
import pyarrow as pa
import pytest
from report_store import N_IMAGES, SHARDS, TASKS, FakeVectors, publish, publish_content, report_context, sha

from vsel_platform.pipeline.models import embedding_fingerprint
from vsel_platform.reports.data import scores_pointer
from vsel_platform.reports.map_data import NO_TASK, scored_map, shard_map


def test_shard_map_has_the_images_of_the_shard_with_the_tasks_of_their_rows(ctx):
    found = shard_map(ctx, "one")
    ids = sorted(sha(f"image {i}") for i in range(0, N_IMAGES, len(SHARDS)))
    tasks = {sha(f"image {i}"): TASKS[i % len(TASKS)] for i in range(N_IMAGES)}
    assert found.tasks == [tasks[i] for i in ids]
    assert found.vectors == pytest.approx(np.array([ctx.vectors.vectors[i] for i in ids], np.float32))
    assert not found.sampled
    assert not any(found.selected)


def test_a_sample_is_bounded_and_fixed(ctx):
    ctx.vectors.requested = 0
    found = shard_map(ctx, "one", limit=5)
    assert ctx.vectors.requested == len(found.tasks) == 5
    assert found.sampled
    assert found.vectors == pytest.approx(shard_map(ctx, "one").vectors[:5])


def test_an_image_is_selected_if_one_of_its_rows_is(ctx):
    scores = scores_pointer(ctx, "shapes", "default")
    second_row_of_image_6 = sha(f"row {N_IMAGES + 1}")
    found = scored_map(ctx, scores, pa.array([second_row_of_image_6, sha("row 5")]))
    ids = sorted(sha(f"image {i}") for i in range(N_IMAGES))
    assert [i for i, chosen in zip(ids, found.selected, strict=True) if chosen] == sorted(
        [sha("image 6"), sha("image 5")]
    )
    assert len(found.tasks) == N_IMAGES


def test_images_without_a_vector_are_left_out(ctx, tmp_path):
    part = report_context(tmp_path)
    publish_content(part, tmp_path)
    known = sorted(part.vectors.vectors)[:7]
    part.__dict__["vectors"] = FakeVectors({i: part.vectors.vectors[i] for i in known})
    assert sum(len(found.tasks) for found in (shard_map(part, s) for s in SHARDS) if found) == 7


def test_nothing_embedded_is_no_map(empty, tmp_path):
    assert shard_map(empty, "one") is None
    publish_content(empty, tmp_path)
    name = embedding_fingerprint(empty.project.image_encoder)
    empty.store.publish_pointer("image_embeddings", {"fingerprint": name, "shard": "one"}, rows=0, data_version="none")
    assert shard_map(empty, "one") is None
    empty.__dict__["vectors"] = FakeVectors({})
    assert shard_map(empty, "two") is None


def test_scores_without_embeddings_or_images_are_no_map(empty):
    row = {"sample_id": sha("row"), "task": "text", "is_reference": False}
    publish(empty, "presel_scores", {"dataset": "shapes", "mode": "default"}, [row])
    scores = scores_pointer(empty, "shapes", "default")
    assert scored_map(empty, scores, pa.array([], pa.string())) is None
    name = embedding_fingerprint(empty.project.image_encoder)
    empty.store.publish_pointer("image_embeddings", {"fingerprint": name, "shard": "one"}, rows=3, data_version="1")
    assert scored_map(empty, scores, pa.array([], pa.string())) is None


def test_images_of_removed_rows_are_in_no_task(empty, tmp_path):
    publish_content(empty, tmp_path)
    publish(empty, "manifest", {"dataset": "shapes"}, [])
    assert set(shard_map(empty, "one").tasks) == {NO_TASK}
