"""Stages `raw_annotations` and `dataset_manifest`: source rows become content, positions and reasons."""

import time
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from vsel_platform.config import DatasetSettings
from vsel_platform.errors import StorageError
from vsel_platform.identity import fingerprint
from vsel_platform.pipeline.context import Context, StageResult
from vsel_platform.pipeline.parts import PartLog
from vsel_platform.samples.ingest import IngestReport
from vsel_platform.samples.source import SourceFingerprint, source_fingerprint
from vsel_platform.storage.pointers import Pointer
from vsel_platform.tables import TABLES

SOURCE_CODE = "raw_annotations-1"
MANIFEST_CODE = "dataset_manifest-1"


def absolute_settings(ctx: Context, dataset: str) -> DatasetSettings:
    """Settings of a dataset with its paths made absolute."""
    settings = ctx.project.dataset(dataset)
    task = settings.task
    if task.files:
        task = task.model_copy(update={"files": {k: ctx.project.resolve(v) for k, v in task.files.items()}})
    return settings.model_copy(
        update={
            "source": ctx.project.resolve(settings.source),
            "image_root": ctx.project.resolve(settings.image_root),
            "task": task,
        }
    )


def observe_source(ctx: Context, dataset: str) -> SourceFingerprint:
    """Fingerprint of the source's content (reads it)."""
    return source_fingerprint([absolute_settings(ctx, dataset).source])


def observe_cheaply(ctx: Context, dataset: str) -> str | None:
    """Sizes and times of the source files, without reading them; None if there is no such file."""
    found = source_fingerprint([absolute_settings(ctx, dataset).source], read=False)
    return found.cheap if found.files else None


def input_fingerprint(ctx: Context, dataset: str, source: SourceFingerprint) -> str:
    """What a manifest depends on: the source's content and how it is read."""
    settings = absolute_settings(ctx, dataset).model_dump(mode="json", exclude={"max_quarantine_rate", "source"})
    return fingerprint(source=source.content, settings=settings, code=MANIFEST_CODE)


def is_current(ctx: Context, dataset: str) -> bool:
    """Whether the stored manifest was made from the present source. Unchanged size and time are trusted."""
    pointer = ctx.store.pointer("manifest", {"dataset": dataset})
    if pointer is None:
        return False
    cheap = observe_cheaply(ctx, dataset)
    recorded = pointer.metadata
    if cheap is not None and cheap == recorded.get("source_cheap"):
        source = SourceFingerprint.from_content(str(recorded["source_content"]))
    else:
        source = observe_source(ctx, dataset)
    return pointer.input_fingerprint == input_fingerprint(ctx, dataset, source)


@dataclass(frozen=True)
class IngestResult:
    """What an ingest published."""

    manifest: StageResult
    quarantine: StageResult
    new_shards: list[str]


@dataclass
class _StoreSink:
    """Publishes shards as they are cut; collects manifest and quarantine batches, which are small."""

    ctx: Context
    dataset: str
    shards: list[str] = field(default_factory=list)
    manifest_parts: list[pa.Table] = field(default_factory=list)
    quarantine_parts: list[pa.Table] = field(default_factory=list)

    def manifest(self, batch: pa.Table) -> None:
        """Rows of the `manifest` table."""
        self.manifest_parts.append(batch)

    def quarantine(self, batch: pa.Table) -> None:
        """Rows of the `quarantine` table."""
        self.quarantine_parts.append(batch)

    def shard(self, name: str, samples: pa.Table, images: pa.Table) -> None:
        """Content of one new shard. Images first: a shard whose samples exist is complete."""
        for table, data in (("images", images), ("samples", samples)):
            self.ctx.store.publish(table, {"shard": name}, data, code_version=MANIFEST_CODE, run_id=self.ctx.run_id)
        self.shards.append(name)

    def blob(self, image_id: str, data: bytes) -> str:
        """Store image bytes that came inside the source; returns where they lie."""
        path = f"blobs/{image_id[:2]}/{image_id}"
        self.ctx.store.files.write_once(path, data)
        return self.ctx.store.files.url(path)
