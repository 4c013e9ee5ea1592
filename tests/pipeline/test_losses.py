"""Losses of a shard: what is stored is not computed again, what failed is tried again and keeps its reason."""

from PIL import Image

from vsel_platform.pipeline import losses
from vsel_platform.storage.pointers import partition_key


def shard_of(ctx):
    """The shard with the most reference rows, and their ids."""
    pointers = ctx.store.pointers("samples")
    wanted = {p.partition["shard"]: losses.wanted_ids(ctx, "shapes", p.partition["shard"]) for p in pointers}
    return max(wanted.items(), key=lambda item: (len(item[1]), item[0]))


def test_scored_rows_are_reused(copied):
    ctx = copied.context()
    shard, ids = shard_of(ctx)
    before = ctx.store.require("losses", losses.partition(ctx, "shapes", shard))
    result = losses.run(ctx, shard)
    assert (result.computed, result.reused, result.failed) == (0, len(ids), 0)
    assert ctx.store.require("losses", losses.partition(ctx, "shapes", shard)).version == before.version


def test_a_failed_row_is_null_keeps_its_reason_and_is_mended_with_its_image(copied, tmp_path):
    ctx = copied.context()
    shard, ids = shard_of(ctx)
    table = ctx.store.read_partition("samples", {"shard": shard}, ["sample_id", "image_ids"]).to_pylist()
    image = next(row["image_ids"][0] for row in table if row["sample_id"] in ids)
    shown = [row["sample_id"] for row in table if row["sample_id"] in ids and image in row["image_ids"]]
    images = ctx.store.read_partition("images", {"shard": shard})
    whole = dict(zip(images["image_id"].to_pylist(), images["path"].to_pylist(), strict=True))[image]
    place(ctx, shard, images, image, str(tmp_path / "gone.png"))
    ctx.store.files.delete_tree(f"tables/{partition_key('losses', key(ctx, shard))}")
    for _ in range(2):
        result = losses.run(ctx, shard)
        assert result.failed == len(shown)
        failures = ctx.store.read_partition("signal_failures", {"signal": "losses", **key(ctx, shard)}).to_pylist()
        assert {row["content_id"] for row in failures} == set(shown)
        rows = ctx.store.read_partition("losses", key(ctx, shard)).to_pylist()
        assert {row["sample_id"] for row in rows if row["loss_sum"] is None} == set(shown)
    Image.open(whole).save(tmp_path / "gone.png")
    result = losses.run(ctx, shard)
    assert (result.computed, result.failed) == (len(shown), 0)
    assert all(row["loss_sum"] is not None for row in ctx.store.read_partition("losses", key(ctx, shard)).to_pylist())


def key(ctx, shard):
    return losses.partition(ctx, "shapes", shard)


def place(ctx, shard, images, image, path):
    """Publish the shard's images with another path for one of them."""
    rows = [row | ({"path": path} if row["image_id"] == image else {}) for row in images.to_pylist()]
    ctx.store.publish("images", {"shard": shard}, type(images).from_pylist(rows, schema=images.schema))
