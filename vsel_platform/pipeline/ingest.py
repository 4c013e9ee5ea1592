"""Stages `raw_annotations` and `dataset_manifest`: source rows become content, positions and reasons."""

import time
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from vsel_platform.config import DatasetSettings
from vsel_platform.errors import DataError
from vsel_platform.identity import fingerprint
from vsel_platform.pipeline.context import Context, StageResult
from vsel_platform.pipeline.quality import PASSED, publish_checked
from vsel_platform.pipeline.timing import record_rate
from vsel_platform.samples.content import KnownContent
from vsel_platform.samples.ingest import IngestReport, ingest
from vsel_platform.samples.sample import REASONS, Reason
from vsel_platform.samples.source import (
    SourceFingerprint,
    cheap_fingerprint,
    source_files,
    source_fingerprint,
    source_size,
)
from vsel_platform.samples.tasks import untasked_warning
from vsel_platform.storage.pointers import Pointer
from vsel_platform.tables import TABLES

SOURCE_CODE = "raw_annotations-1"
MANIFEST_CODE = "dataset_manifest-1"
MOST_TASKS = 20
NAMED_FILES = 100


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


@dataclass(frozen=True)
class Source:
    """Files of a dataset's source, their size in bytes, and their fingerprint."""

    files: list[str]
    n_bytes: int
    state: SourceFingerprint

    @property
    def content(self) -> str:
        """Fingerprint of the bytes."""
        return self.state.content


def observe_source(ctx: Context, dataset: str) -> Source:
    """State of the source; the bytes are read only if names, sizes or times differ from the stored manifest's."""
    files = source_files(absolute_settings(ctx, dataset).source)
    return Source(files, source_size(files), source_fingerprint(files, _recorded(ctx, dataset)))


def observe_cheaply(ctx: Context, dataset: str) -> str | None:
    """Names, sizes and times of the source files, without reading them; None while there is none."""
    try:
        return cheap_fingerprint(source_files(absolute_settings(ctx, dataset).source))
    except DataError:
        return None


def _recorded(ctx: Context, dataset: str) -> SourceFingerprint | None:
    pointer = ctx.store.pointer("manifest", {"dataset": dataset})
    if pointer is None or "source_cheap" not in pointer.metadata:
        return None
    return SourceFingerprint(str(pointer.metadata["source_cheap"]), str(pointer.metadata["source_content"]))


def input_fingerprint(ctx: Context, dataset: str, content: str) -> str:
    """What a manifest depends on: the source's content and how it is read."""
    settings = absolute_settings(ctx, dataset).model_dump(mode="json", exclude={"max_quarantine_rate", "source"})
    return fingerprint(source=content, settings=settings, code=MANIFEST_CODE)


def is_current(ctx: Context, dataset: str) -> bool:
    """Whether the stored manifest was made from the present source, and judged by the present limit of quarantine.

    Unchanged names, sizes and times are trusted.
    """
    pointer = ctx.store.pointer("manifest", {"dataset": dataset})
    if pointer is None:
        return False
    within = float(pointer.metadata["quarantine_rate"]) <= ctx.project.dataset(dataset).max_quarantine_rate
    if within != (pointer.quality == PASSED):
        return False
    return pointer.input_fingerprint == input_fingerprint(ctx, dataset, observe_source(ctx, dataset).content)


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


def run(ctx: Context, dataset: str) -> IngestResult:
    """Ingest a dataset: shards of new content first, then quarantine, then the manifest that names them.

    Killed at any point it leaves whole shards; a repeated run gives them the same names.
    """
    start = time.perf_counter()
    sink = _StoreSink(ctx, dataset)
    report = ingest(
        absolute_settings(ctx, dataset),
        sink,
        dataset=dataset,
        known=known_content(ctx),
        known_images=known_images(ctx),
        progress=lambda rows, done, total: ctx.progress(f"bytes read, {rows:,} rows", done, total),
    )
    lineage: dict[str, Any] = {
        "input_fingerprint": input_fingerprint(ctx, dataset, report.fingerprint.content),
        "inputs": [],
        "code_version": MANIFEST_CODE,
        "run_id": ctx.run_id,
        "metadata": _metadata(report, ctx.project.dataset(dataset)),
    }
    quarantine = publish_checked(ctx, "quarantine", {"dataset": dataset}, _tables("quarantine", sink), **lineage)
    manifest = publish_checked(ctx, "manifest", {"dataset": dataset}, _tables("manifest", sink), **lineage)
    seconds = time.perf_counter() - start
    record_rate(ctx, "dataset_manifest", "", report.n_rows, seconds)
    return IngestResult(
        _stage("dataset_manifest", manifest, report.n_new, report.n_distinct - report.n_new, seconds),
        _stage("quarantine", quarantine, 0, 0, seconds),
        list(report.new_shards),
    )


def known_content(ctx: Context) -> KnownContent:
    """Content that any dataset brought into the store."""
    pointers = ctx.store.pointers("samples")
    return KnownContent.from_samples(
        (p.partition["shard"], ctx.store.read(p, ["sample_id", "row_json"])) for p in pointers
    )


def known_images(ctx: Context) -> set[str]:
    """Images that any whole shard of the store has."""
    shards = {p.partition["shard"] for p in ctx.store.pointers("samples")}
    found: set[str] = set()
    for pointer in ctx.store.pointers("images"):
        if pointer.partition["shard"] in shards:
            found.update(ctx.store.read(pointer, ["image_id"])["image_id"].to_pylist())
    return found


def _metadata(report: IngestReport, settings: DatasetSettings) -> dict[str, Any]:
    warning = untasked_warning(settings.task, report.n_untasked, report.n_accepted)
    return {
        **({"warning": warning} if warning else {}),
        "source_files": list(report.files[:NAMED_FILES]),
        "n_source_files": len(report.files),
        "source_cheap": report.fingerprint.cheap,
        "source_content": report.fingerprint.content,
        "rows": report.n_rows,
        "duplicates": report.n_duplicates,
        "text_only": report.n_text_only,
        "images": report.n_images,
        "quarantine_rate": report.quarantine_rate,
    }


def _tables(name: str, sink: _StoreSink) -> list[pa.Table]:
    parts = sink.manifest_parts if name == "manifest" else sink.quarantine_parts
    return parts or [TABLES[name].arrow_schema().empty_table()]


def _stage(name: str, pointer: Pointer, computed: int, reused: int, seconds: float) -> StageResult:
    return StageResult(
        name,
        dict(pointer.partition),
        pointer.data_version,
        pointer.rows,
        computed=computed,
        reused=reused,
        seconds=seconds,
        references=[pointer.reference],
        metadata=pointer.metadata,
    )


@dataclass(frozen=True)
class SourceCheck:
    """What reading a source without storing it found."""

    dataset: str
    rows: int
    rejected: dict[str, int]
    limit: float
    tasks: dict[str, int] = field(default_factory=dict)
    warning: str | None = None

    @property
    def rate(self) -> float:
        """Share of refused rows."""
        return sum(self.rejected.values()) / self.rows

    @property
    def above_limit(self) -> bool:
        """Whether more rows are refused than the project file allows."""
        return self.rate > self.limit

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "above_limit": self.above_limit}

    def to_text(self) -> str:
        """For people."""
        bad = sum(self.rejected.values())
        lines = [f"{self.dataset}: {self.rows:,} rows read, {bad:,} would be quarantined"]
        lines += [f"  {count:>8,}  {reason}: {REASONS[Reason(reason)]}" for reason, count in self.rejected.items()]
        if self.above_limit:
            lines.append(
                f"  that is {self.rate:.1%}, more than max_quarantine_rate {self.limit:.1%}: the ingest would fail its "
                "check; mend the source, or raise the limit if the loss is meant"
            )
        shown = list(self.tasks.items())[:MOST_TASKS]
        lines += [f"  {count:>8,}  task {name}" for name, count in shown]
        if len(self.tasks) > MOST_TASKS:
            lines.append(f"  {sum(self.tasks.values()) - sum(n for _, n in shown):>8,}  in more tasks")
        if self.warning:
            lines.append(f"  warning: {self.warning}")
        return "\n".join(lines)


def check_source(ctx: Context, dataset: str) -> SourceCheck:
    """Read and validate a source without storing anything."""
    settings = ctx.project.dataset(dataset)
    report = ingest(absolute_settings(ctx, dataset), _NoSink(), dataset=dataset)
    has_tasks = settings.task.column or settings.task.files or settings.task.rule
    return SourceCheck(
        dataset,
        report.n_rows,
        report.rejected,
        settings.max_quarantine_rate,
        report.tasks if has_tasks else {},
        untasked_warning(settings.task, report.n_untasked, report.n_accepted),
    )


class _NoSink:
    """Takes everything and keeps nothing."""

    def manifest(self, batch: pa.Table) -> None:
        """Drop manifest rows."""

    def quarantine(self, batch: pa.Table) -> None:
        """Drop refused rows."""

    def shard(self, name: str, samples: pa.Table, images: pa.Table) -> None:
        """Drop a shard."""

    def blob(self, image_id: str, data: bytes) -> str:
        """Drop image bytes."""
        return f"blob:{image_id}"
