"""Rows of the store in the form that models train on, score and are evaluated with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.lookup import (
    dataset_shards,
    distinct_contents,
    image_loader,
    image_paths,
    samples_of,
    turns_of,
)

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One row for a model: identity, task, turns `(role, text)`, image identities in order."""

    sample_id: str
    task: str
    turns: tuple[tuple[str, str], ...]
    images: tuple[str, ...]


def training_rows(ctx: Context, dataset: str, sample_ids: Sequence[str]) -> list[ModelRow]:
    """Rows of a dataset by id, in the order of `sample_ids`; ids that are not in the dataset are left out."""
    _, contents = distinct_contents(ctx, dataset)
    tasks = {row.sample_id: row.task for row in contents}
    table = samples_of(ctx, dataset_shards(ctx, dataset), set(sample_ids), ["sample_id", "conversation", "image_ids"])
    columns = (table[name].to_pylist() for name in ("sample_id", "conversation", "image_ids"))
    rows = {
        sample: ModelRow(sample, tasks.get(sample, ""), tuple(turns_of(conversation)), tuple(images))
        for sample, conversation, images in zip(*columns, strict=True)
    }
    return [rows[sample] for sample in sample_ids if sample in rows and sample in tasks]


def shard_rows(ctx: Context, shard: str, sample_ids: Sequence[str]) -> list[ModelRow]:
    """Rows of a shard by id, in the order of `sample_ids`; they have no task, which only a dataset gives them."""
    table = samples_of(ctx, [shard], set(sample_ids), ["sample_id", "conversation", "image_ids"])
    columns = (table[name].to_pylist() for name in ("sample_id", "conversation", "image_ids"))
    rows = {
        sample: ModelRow(sample, "", tuple(turns_of(conversation)), tuple(images))
        for sample, conversation, images in zip(*columns, strict=True)
    }
    return [rows[sample] for sample in sample_ids]


def image_provider(ctx: Context) -> Callable[[str], "Image"]:
    """Loader of the store's images by id, with the largest pixel limit of the project's datasets."""
    limit = max(dataset.images.max_pixels for dataset in ctx.project.datasets.values())
    return image_loader(image_paths(ctx), max_pixels=limit)
