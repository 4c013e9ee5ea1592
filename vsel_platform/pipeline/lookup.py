"""Questions that several stages ask the store."""

import io
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from vsel_platform.errors import DataError
from vsel_platform.pipeline.context import Context
from vsel_platform.storage.pointers import Pointer

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Content:
    """One distinct row of a dataset, as it stands first in the source."""

    sample_id: str
    position: int
    task: str
    shard: str


def distinct_contents(ctx: Context, dataset: str) -> tuple[Pointer, list[Content]]:
    """Distinct rows of a dataset in source order, with the manifest's pointer."""
    pointer = ctx.store.require("manifest", {"dataset": dataset})
    table = ctx.store.read(pointer, ["position", "sample_id", "shard", "task", "is_duplicate"])
    table = table.filter(pc.invert(table["is_duplicate"]))
    columns = (table[name].to_pylist() for name in ("sample_id", "position", "task", "shard"))
    return pointer, [Content(*row) for row in zip(*columns, strict=True)]


def dataset_shards(ctx: Context, dataset: str) -> list[str]:
    """Shards that hold content of a dataset, sorted."""
    return manifest_shards(ctx, ctx.store.require("manifest", {"dataset": dataset}))


def manifest_shards(ctx: Context, manifest: Pointer) -> list[str]:
    """Shards that hold content of a state of a dataset, sorted."""
    return sorted(pc.unique(ctx.store.read(manifest, ["shard"])["shard"]).to_pylist())


def in_image_order(ctx: Context, shard: str, wanted: Collection[str] | None = None) -> list[str]:
    """Ids of a shard's rows, those of the same images side by side: so that each image is decoded and encoded once,
    and what rows of an image share at their beginning is computed once. `wanted` restricts the ids."""
    table = samples_of(ctx, [shard], wanted, ["image_ids", "sample_id"])
    pairs = zip(*(table[name].to_pylist() for name in table.column_names), strict=True)
    return [sample for _, sample in sorted(pairs)]


def samples_of(ctx: Context, shards: Collection[str], wanted: Collection[str] | None, columns: list[str]) -> pa.Table:
    """Rows of the `samples` table in the given shards; `wanted` restricts the sample ids."""
    parts = []
    ids = pa.array(sorted(wanted), pa.string()) if wanted is not None else None
    for shard in sorted(shards):
        table = ctx.store.read_partition("samples", {"shard": shard}, columns)
        if ids is not None:
            table = table.filter(pc.is_in(table["sample_id"], ids))
        parts.append(table)
    if not parts:
        return pa.table({name: pa.array([], pa.string()) for name in columns})
    return pa.concat_tables(parts)


def turns_of(conversation: str) -> list[tuple[str, str]]:
    """Turns `(role, text)` of the `conversation` column."""
    return [(role, text) for role, text in orjson.loads(conversation)]


def image_paths(ctx: Context) -> dict[str, str]:
    """Path or URL of every image of the store, by image id."""
    paths: dict[str, str] = {}
    for pointer in ctx.store.pointers("images"):
        table = ctx.store.read(pointer, ["image_id", "path"])
        paths.update(zip(table["image_id"].to_pylist(), table["path"].to_pylist(), strict=True))
    return paths


def image_loader(paths: dict[str, str], *, max_pixels: int) -> Callable[[str], "Image"]:
    """Loader of images by id. It raises DataError for an unknown, unreadable or oversized image."""

    def load(image_id: str) -> "Image":
        if image_id not in paths:
            raise DataError(f"image {image_id} is in no shard; ingest its dataset again")
        return open_image(paths[image_id], max_pixels=max_pixels)

    return load


def open_image(path: str, *, max_pixels: int) -> "Image":
    """Decode an image to RGB. Raises DataError if it cannot be read or has more than `max_pixels` pixels."""
    import fsspec
    from PIL import Image

    try:
        with fsspec.open(path, "rb") as file:
            data: Any = io.BytesIO(file.read())
        with Image.open(data) as image:
            if image.width * image.height > max_pixels:
                raise DataError(f"{path}: {image.width} x {image.height} pixels, {max_pixels} are allowed")
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be decoded: {error}") from error
