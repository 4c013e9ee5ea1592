"""Source rows of a dataset, exactly as they came, and files in the source's own format."""

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.ingest import absolute_settings
from vsel_platform.pipeline.lookup import samples_of
from vsel_platform.samples.containers import container_of
from vsel_platform.samples.rows import whole_row
from vsel_platform.samples.source import source_files
from vsel_platform.samples.writing import write_rows
from vsel_platform.storage.pointers import Pointer


def source_rows(
    ctx: Context, dataset: str, manifest: Pointer, positions: Collection[int] | None
) -> Iterator[tuple[int, bytes]]:
    """(position, row as JSON) in source order; `positions` restricts them."""
    table = ctx.store.read(manifest, ["position", "sample_id", "shard", "row_json"])
    rows = [row for row in table.to_pylist() if positions is None or row["position"] in positions]
    wanted = {row["sample_id"] for row in rows if row["row_json"] is None}
    shards = {row["shard"] for row in rows if row["row_json"] is None}
    content = samples_of(ctx, shards, wanted, ["sample_id", "row_json", "turns_key", "conversation"])
    columns = (content[name].to_pylist() for name in ("sample_id", "row_json", "turns_key", "conversation"))
    stored = {sample: kept for sample, *kept in zip(*columns, strict=True)}
    for row in sorted(rows, key=lambda row: row["position"]):
        own = row["row_json"]
        yield row["position"], whole_row(*stored[row["sample_id"]]) if own is None else own.encode()


def write_source_format(ctx: Context, dataset: str, rows: Iterable[bytes], stem: Path) -> str:
    """Write rows in the container and style of the dataset's source (`stem` gets its suffix); returns the suffix."""
    source = source_files(absolute_settings(ctx, dataset).source)[0]
    container = container_of(source)
    suffix = {"array": ".json", "lines": ".jsonl", "parquet": ".parquet"}[container.kind]

    def blob(image_id: str) -> bytes:
        return ctx.store.files.read(f"blobs/{image_id[:2]}/{image_id}")

    write_rows(rows, str(stem.with_suffix(suffix)), container, blob)
    return suffix
