"""Source rows of a dataset, exactly as they came, and files in the source's own format."""

import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.ingest import absolute_settings
from vsel_platform.pipeline.lookup import samples_of
from vsel_platform.samples.formats import writer_for
from vsel_platform.storage.pointers import Pointer


def source_rows(
    ctx: Context, dataset: str, manifest: Pointer, positions: Collection[int] | None
) -> Iterator[tuple[int, bytes]]:
    """(position, row as JSON) in source order; `positions` restricts them."""
    table = ctx.store.read(manifest, ["position", "sample_id", "shard", "row_json"])
    rows = [row for row in table.to_pylist() if positions is None or row["position"] in positions]
    stored: dict[str, str] = {}
    wanted = {row["sample_id"] for row in rows if row["row_json"] is None}
    shards = {row["shard"] for row in rows if row["row_json"] is None}
    content = samples_of(ctx, shards, wanted, ["sample_id", "row_json"])
    stored.update(zip(content["sample_id"].to_pylist(), content["row_json"].to_pylist(), strict=True))
    for row in sorted(rows, key=lambda row: row["position"]):
        yield row["position"], (row["row_json"] or stored[row["sample_id"]]).encode()


def write_source_format(ctx: Context, dataset: str, rows: Iterable[bytes], stem: Path) -> str:
    """Write rows in the container of the dataset's source (`stem` gets its suffix); returns the suffix."""
    settings = absolute_settings(ctx, dataset)
    suffix = os.path.splitext(settings.source)[1] or ".json"  # noqa: PTH122  (the source may be a URL)
    if suffix not in (".json", ".jsonl", ".parquet"):
        suffix = ".json"
    writer_for(settings.format)(rows, stem.with_suffix(suffix))
    return suffix
