"""The held-out rows that checkpoints are evaluated on."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from vsel_platform.config import DatasetSettings, TaskSettings
from vsel_platform.errors import ConfigError
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.lookup import image_loader
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


def held_out_rows(ctx: Context) -> "tuple[list[ModelRow], Callable[[str], Image]]":
    """Usable held-out rows (a stable choice of `evaluation_rows`), and the loader of their images."""
    from vsel_platform.samples.ingest import read_samples

    settings = held_out_settings(ctx)
    rows: dict[str, ModelRow] = {}
    paths: dict[str, str] = {}
    for sample, images in read_samples(settings):
        turns = tuple((turn.role, turn.text) for turn in sample.turns)
        rows[sample.sample_id] = ModelRow(sample.sample_id, sample.task, turns, tuple(sample.image_ids))
        paths.update({image.image_id: image.path for image in images})
    ids = sorted(rows)
    limit = ctx.project.training.evaluation_rows
    if limit and limit < len(ids):
        uniform = dict(zip(ids, stable_uniform(0, ids), strict=True))
        ids = sorted(sorted(ids, key=lambda i: (uniform[i], i))[:limit])
    return [rows[i] for i in ids], image_loader(paths, max_pixels=settings.images.max_pixels)
