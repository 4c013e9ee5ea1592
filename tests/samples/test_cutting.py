"""New content cut into shards."""

from collections.abc import Callable
from typing import Any

import pytest

from vsel_platform.config import DatasetSettings
from vsel_platform.identity import hash_ids
from vsel_platform.samples import cutting
from vsel_platform.samples.batches import BatchProcessor
from vsel_platform.samples.content import KnownContent
from vsel_platform.samples.cutting import ShardCutter
from vsel_platform.samples.reading import SourceReader

Settings = Callable[..., DatasetSettings]


def cut(settings: DatasetSettings, sink: Any, *, batch_bytes: int = 1 << 20, known: Any = None) -> ShardCutter:
    processor = BatchProcessor(settings)
    cutter = ShardCutter(
        "d", settings.shard_rows, KnownContent() if known is None else known, (), sink, processor.tasks
    )
    for batch in SourceReader([settings.source], batch_bytes=batch_bytes).batches():
        cutter.add(processor.process(batch))
    cutter.finish()
    return cutter


@pytest.mark.parametrize("batch_bytes", [200, 1_000, 1 << 20])
@pytest.mark.parametrize("shard_rows", [1, 7, 50, 51])
def test_shards_are_full_sorted_and_named_by_content(
    make_settings: Settings, make_row: Any, sink: Any, shard_rows: int, batch_bytes: int
) -> None:
    cutter = cut(make_settings([make_row(i) for i in range(50)], shard_rows=shard_rows), sink, batch_bytes=batch_bytes)
    assert list(sink.shards) == cutter.new_shards
    sizes = [samples.num_rows for samples, _ in sink.shards.values()]
    assert sizes == [min(shard_rows, 50 - start) for start in range(0, 50, shard_rows)]
    for name, (samples, images) in sink.shards.items():
        ids = samples["sample_id"].to_pylist()
        assert name == f"d-{hash_ids(ids)[:12]}"
        assert ids == sorted(ids)
        assert images["image_id"].to_pylist() == sorted(images["image_id"].to_pylist())
        named = {row["sample_id"] for row in sink.manifest_rows if row["shard"] == name}
        assert named == set(ids)


def test_the_result_does_not_depend_on_the_batches(make_settings: Settings, make_row: Any, new_sink: Any) -> None:
    rows = [make_row(i % 37, extra=i % 50) for i in range(120)]
    settings = make_settings(rows, shard_rows=10)
    found = []
    for batch_bytes in (100, 1_000, 1 << 20):
        sink = new_sink()
        cut(settings, sink, batch_bytes=batch_bytes)
        found.append(sink.contents())
    assert found[0] == found[1] == found[2]


def test_rows_that_wait_are_bounded(
    make_settings: Settings, make_row: Any, sink: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "SHARD_BYTES", 4_000)
    rows = [make_row(0, extra=i) for i in range(100)] + [make_row(i) for i in range(1, 30)]
    cutter = cut(make_settings(rows), sink, batch_bytes=500)
    assert len(cutter.new_shards) > 3
    assert [row["position"] for row in sink.manifest_rows] == list(range(len(rows)))
    assert len(sink.sample_rows) == 30


def test_manifest_rows_come_in_order_and_behind_their_shards(make_settings: Settings, make_row: Any, sink: Any) -> None:
    seen: list[int] = []
    original = sink.manifest

    def manifest(batch: Any) -> None:
        assert set(batch["shard"].to_pylist()) <= set(sink.shards)
        seen.extend(batch["position"].to_pylist())
        original(batch)

    sink.manifest = manifest
    cut(make_settings([make_row(i) for i in range(60)], shard_rows=9), sink, batch_bytes=700)
    assert seen == list(range(60))


def test_an_image_belongs_to_the_first_shard_that_uses_it(make_settings: Settings, make_row: Any, sink: Any) -> None:
    rows = [make_row(i, image=f"{i % 3}.png") for i in range(12)]
    cutter = cut(make_settings(rows, shard_rows=4), sink)
    assert [images.num_rows for _, images in sink.shards.values()] == [3, 0, 0]
    assert (cutter.totals.images, cutter.totals.new_images) == (3, 3)
