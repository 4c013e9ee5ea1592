"""The held-out rows that checkpoints are evaluated on."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from vsel_platform.config import DatasetSettings, TaskSettings
from vsel_platform.errors import ConfigError, DataError
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.lookup import image_loader, turns_of
from vsel_platform.pipeline.training_rows import ModelRow
from vsel_platform.selection.stable_hash import stable_uniform

if TYPE_CHECKING:
    from PIL.Image import Image


def held_out_settings(ctx: Context) -> DatasetSettings:
    """The held-out file as a dataset: it shares image root, limits and task rule with the first dataset."""
    path = ctx.project.training.evaluation
    if path is None:
        raise ConfigError("training.evaluation: name a LLaVA JSON file with held-out rows")
    first = next(iter(ctx.project.datasets.values()))
    return DatasetSettings(
        format="llava",
        source=ctx.project.resolve(path),
        image_root=ctx.project.resolve(first.image_root),
        task=first.task if first.task.column else TaskSettings(),
        images=first.images,
        max_quarantine_rate=1.0,
    )


def held_out_fingerprint(ctx: Context) -> str:
    """Content fingerprint of the held-out file."""
    from vsel_platform.samples.source import source_files, source_fingerprint

    return source_fingerprint(source_files(held_out_settings(ctx).source)).content


class _Collector:
    """Keeps what an ingest finds, in memory: held-out files are small."""

    def __init__(self) -> None:
        self.tasks: dict[str, str] = {}
        self.rows: list[dict[str, Any]] = []
        self.paths: dict[str, str] = {}

    def manifest(self, batch: pa.Table) -> None:
        """Remember the task of every row."""
        self.tasks.update(zip(batch["sample_id"].to_pylist(), batch["task"].to_pylist(), strict=True))

    def quarantine(self, batch: pa.Table) -> None:
        """Refused rows are not evaluated on."""

    def shard(self, name: str, samples: pa.Table, images: pa.Table) -> None:
        """Remember content and where the images lie."""
        self.rows += samples.select(["sample_id", "conversation", "image_ids"]).to_pylist()
        self.paths.update(zip(images["image_id"].to_pylist(), images["path"].to_pylist(), strict=True))

    def blob(self, image_id: str, data: bytes) -> str:
        """Held-out rows are LLaVA JSON, which embeds no images."""
        raise DataError("training.evaluation: images must be files")


def held_out_rows(ctx: Context) -> "tuple[list[ModelRow], Callable[[str], Image]]":
    """Usable held-out rows (a stable choice of `evaluation_rows`), and the loader of their images."""
    from vsel_platform.samples.ingest import ingest

    settings = held_out_settings(ctx)
    found = _Collector()
    ingest(settings, found, dataset="held-out", workers=0)
    rows = {
        row["sample_id"]: ModelRow(
            row["sample_id"],
            found.tasks[row["sample_id"]],
            tuple(turns_of(row["conversation"])),
            tuple(row["image_ids"]),
        )
        for row in found.rows
    }
    ids = sorted(rows)
    limit = ctx.project.training.evaluation_rows
    if limit and limit < len(ids):
        uniform = dict(zip(ids, stable_uniform(0, ids), strict=True))
        ids = sorted(sorted(ids, key=lambda i: (uniform[i], i))[:limit])
    return [rows[i] for i in ids], image_loader(found.paths, max_pixels=settings.images.max_pixels)
