"""Source rows to manifest, quarantine and shards of new content, in one pass and in bounded memory.

    source files -> raw batches -> (worker processes) parse, validate, identify -> here: duplicates, shards -> sink

The result depends on the source, on what is known, and on the settings; not on the number of workers, and not
on whether an earlier ingest was killed: shards are cut and named by content.
"""

import os
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from vsel_platform.config import DatasetSettings
from vsel_platform.errors import DataError, QuarantineLimitError
from vsel_platform.samples.batches import BatchProcessor, Processed
from vsel_platform.samples.collector import collector_paused
from vsel_platform.samples.content import KnownContent
from vsel_platform.samples.cutting import ShardCutter
from vsel_platform.samples.reading import BATCH_BYTES, SourceReader
from vsel_platform.samples.sample import REASONS, Reason
from vsel_platform.samples.source import (
    SourceFingerprint,
    cheap_fingerprint,
    content_fingerprint,
    source_files,
    source_size,
)
from vsel_platform.samples.workers import WorkerPool

PARALLEL_BYTES = 64 << 20
MAX_WORKERS = 8

Progress = Callable[[int, int, int], None]


class IngestSink(Protocol):
    """Where an ingest writes. Tables have the schemas of `tables.py`.

    A sink must publish a shard as one unit: `known` and `known_images` of a later ingest must name the content
    of whole shards only. Manifest and quarantine come in source order and count once all of them are there.
    """

    def manifest(self, batch: Any) -> None:
        """Take the next manifest rows."""

    def quarantine(self, batch: Any) -> None:
        """Take the next refused rows."""

    def shard(self, name: str, samples: Any, images: Any) -> None:
        """Publish a shard: samples and the images that no earlier shard has, each sorted by identity."""

    def blob(self, image_id: str, data: bytes) -> str:
        """Store the bytes of an embedded image; its path or URL."""


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What an ingest found. Counts are rows unless the name says otherwise."""

    n_rows: int
    n_accepted: int
    rejected: dict[str, int]
    n_duplicates: int
    n_distinct: int
    n_new: int
    n_text_only: int
    n_images: int
    n_new_images: int
    new_shards: tuple[str, ...]
    fingerprint: SourceFingerprint
    seconds: float
    files: tuple[str, ...] = field(default=())
    tasks: dict[str, int] = field(default_factory=dict)
    n_untasked: int = 0

    @property
    def n_rejected(self) -> int:
        """Refused rows."""
        return sum(self.rejected.values())

    @property
    def quarantine_rate(self) -> float:
        """Share of refused rows."""
        return self.n_rejected / self.n_rows

    def require_quarantine_rate(self, limit: float) -> None:
        """Raise QuarantineLimitError, naming the most frequent reason, if more than `limit` was refused."""
        if self.quarantine_rate <= limit:
            return
        reason, count = max(self.rejected.items(), key=lambda item: (item[1], item[0]))
        raise QuarantineLimitError(
            f"{self.n_rejected} of {self.n_rows} rows ({self.quarantine_rate:.1%}) were refused, more than "
            f"max_quarantine_rate {limit:.1%}; most frequent: {reason} ({count}): {REASONS[Reason(reason)]} "
            "Look at the `quarantine` table, mend the source, or raise the limit."
        )


def ingest(
    settings: DatasetSettings,
    sink: IngestSink,
    *,
    dataset: str,
    known: KnownContent | None = None,
    known_images: Collection[str] = (),
    workers: int | None = None,
    progress: Progress | None = None,
) -> IngestReport:
    """Read a source into a sink. Paths in `settings` are absolute or URLs.

    `known` is extended by the new content. `workers`: processes that parse and validate; None chooses (none
    for small sources), 0 keeps everything in this process. `progress` is called with (rows, bytes read, bytes).
    Raises DataError if the source is missing, is not text, has no rows, or changes while it is read. A row never
    raises.
    """
    started = time.monotonic()
    files = source_files(settings.source)
    cheap, size = cheap_fingerprint(files), source_size(files)
    processor = BatchProcessor(settings)
    source = SourceReader(files, batch_bytes=BATCH_BYTES)
    cutter = ShardCutter(
        dataset,
        settings.shard_rows,
        KnownContent() if known is None else known,
        known_images,
        sink,
        processor.tasks,
    )
    count = _worker_count(size) if workers is None else workers
    n_rows = 0
    for result in _processed(source, processor, settings, count):
        with collector_paused():
            cutter.add(result)
        n_rows += result.n_rows
        if progress is not None:
            progress(n_rows, source.bytes_read, size)
    cutter.finish()
    if cheap_fingerprint(files) != cheap:
        raise DataError(f"{settings.source} changed while it was read; run the ingest again")
    if not n_rows:
        raise DataError(f"{settings.source} has no rows; check `source` and `format` of dataset {dataset!r}")
    totals = cutter.totals
    return IngestReport(
        n_rows=n_rows,
        n_accepted=totals.accepted,
        rejected=dict(sorted(totals.rejected.items())),
        n_duplicates=totals.duplicates,
        n_distinct=totals.accepted - totals.duplicates,
        n_new=totals.new,
        n_text_only=totals.text_only,
        n_images=totals.images,
        n_new_images=totals.new_images,
        new_shards=tuple(cutter.new_shards),
        fingerprint=SourceFingerprint(cheap, content_fingerprint(source.digests)),
        seconds=time.monotonic() - started,
        files=tuple(files),
        tasks=dict(totals.tasks.most_common()),
        n_untasked=totals.untasked,
    )


def _worker_count(size: int) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if size < PARALLEL_BYTES or cores < 2 else min(cores, MAX_WORKERS)


def _processed(
    source: SourceReader, processor: BatchProcessor, settings: DatasetSettings, workers: int
) -> Iterator[Processed]:
    if not workers:
        yield from map(processor.process, source.batches())
        return
    with WorkerPool(settings, workers) as pool:
        yield from pool.process(source.batches(), processor)
