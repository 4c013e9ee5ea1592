import numpy as np
from small_project import row, small_rows

from vsel_platform.pipeline.maintenance import compact_vectors
from vsel_platform.pipeline.models import embedding_fingerprint


def read(ctx, version=None):
    name = embedding_fingerprint(ctx.project.image_encoder)
    return ctx.vectors.read("image_embeddings", name, None, version)


def test_compaction_merges_files_and_keeps_every_vector(copied):
    ctx = copied.context()
    ids, vectors = read(ctx)
    name = f"image_embeddings/{embedding_fingerprint(ctx.project.image_encoder)}"
    found = compact_vectors(ctx)
    assert list(found) == [name]
    assert found[name].fragments_before == 3  # one a shard
    assert found[name].fragments_after == 1
    after_ids, after = read(copied.context())
    assert after_ids == ids
    assert len(ids) == 90
    np.testing.assert_array_equal(after, vectors)


def test_states_that_pointers_name_stay_readable_and_nothing_becomes_stale(copied):
    ctx = copied.context()
    versions = [int(p.metadata["lance_version"]) for p in ctx.store.pointers("image_embeddings")]
    old = [read(ctx, version) for version in versions]
    compact_vectors(ctx)
    for version, (ids, vectors) in zip(versions, old, strict=True):
        again_ids, again = read(copied.context(), version)
        assert again_ids == ids
        np.testing.assert_array_equal(again, vectors)
    assert copied.drive(["presel", "random"], train=True) == []


def test_new_images_go_into_a_compacted_table(copied):
    compact_vectors(copied.context())
    copied.write([*small_rows(), row(300)])
    copied.drive(["presel"])
    assert len(read(copied.context())[0]) == 91


def test_a_compact_table_stays_as_it_is(copied):
    compact_vectors(copied.context())
    (again,) = compact_vectors(copied.context()).values()
    assert again.fragments_before == again.fragments_after == 1
    assert len(read(copied.context())[0]) == 90


def test_a_store_without_embeddings_has_nothing_to_compact(fresh):
    assert compact_vectors(fresh.context()) == {}


def test_every_encoder_has_a_table_of_its_own(copied):
    copied.drive(["presel"], {"image_encoder.dtype": "bfloat16"})
    assert len(compact_vectors(copied.context())) == 2
