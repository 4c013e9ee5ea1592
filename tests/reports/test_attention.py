"""Pictures with the image tokens that two models look at."""

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from report_store import contents

from vsel_platform.pipeline import attention
from vsel_platform.pipeline.lookup import dataset_shards
from vsel_platform.reports import attention as report
from vsel_platform.reports.attention import _Look, attention_sheet, mark
from vsel_platform.tables import TABLES


def test_cells_are_veiled_in_the_colour_of_the_model_that_looks_there():
    look = _Look(frozenset([0, 3]), frozenset([1, 3]), 4)
    found = np.asarray(mark(Image.new("RGB", (10, 10), "white"), look).convert("RGB")).astype(int)
    corners = [found[y, x] for y in (10, -10) for x in (10, -10)]
    orange, blue, plain, dark = corners
    assert orange[0] > orange[2] + 60  # more red than blue
    assert blue[2] > blue[0] + 60
    assert plain.tolist() == [255, 255, 255]
    assert dark.max() < 160
    assert look.overlap == pytest.approx(1 / 3)


def test_pictures_that_are_not_square_keep_their_shape():
    assert mark(Image.new("RGB", (40, 20)), _Look(frozenset([0]), frozenset(), 4)).size == (256, 128)


@pytest.fixture
def published(fresh_store, monkeypatch):
    """A store with maps of two models, which agree on the first row alone."""
    ctx = fresh_store
    shard = dataset_shards(ctx, "shapes")[0]
    keys = [{"fingerprint": name, "shard": shard} for name in ("one", "two")]
    monkeypatch.setattr(attention, "partitions", lambda ctx, shard: keys)
    numbers = {"n_steps": 2, "n_tokens": 16, "entropy": 1.0, "sharpness": 0.2, "mass": 0.4}
    rows = [row for row in contents() if row.get("image_ids", True)]
    for number, key in enumerate(keys):
        records = [
            {"sample_id": row["sample_id"], "top_tokens": [0, 1] if i == 0 else [number, 4 + number], **numbers}
            for i, row in enumerate(rows)
        ]
        table = pa.Table.from_pylist(records, schema=TABLES["attention_maps"].arrow_schema())
        ctx.store.publish("attention_maps", key, table)
    return ctx, shard


@pytest.fixture
def fresh_store(tmp_path):
    from report_store import full_context

    return full_context(tmp_path)


def test_the_sheet_has_both_ends(published, monkeypatch):
    ctx, shard = published
    captions = []
    tiles = report.tiles

    def spy(ctx, chosen, *rest):
        captions.append([caption.measure for caption in chosen])
        return tiles(ctx, chosen, *rest)

    monkeypatch.setattr(report, "tiles", spy)
    png = attention_sheet(ctx, shard)
    assert Image.open(io.BytesIO(png)).size[0] == 720
    least, most = captions
    assert set(least) == {"overlap 0%"}
    assert most[0] == "overlap 100%"


def test_without_maps_there_is_no_sheet(fresh_store, monkeypatch):
    monkeypatch.setattr(attention, "partitions", lambda ctx, shard: [{"fingerprint": "none", "shard": shard}])
    assert attention_sheet(fresh_store, dataset_shards(fresh_store, "shapes")[0]) is None
