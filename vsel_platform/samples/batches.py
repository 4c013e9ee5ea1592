"""A batch of found rows to Arrow tables: parse, validate, identify. Pure: the same batch gives the same tables,
in whichever process it runs.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Any

from vsel_platform.config import DatasetSettings
from vsel_platform.samples.columnar import ValueBatch
from vsel_platform.samples.formats import Format, reader
from vsel_platform.samples.images import ImageIndex, default_root
from vsel_platform.samples.raw import RawBatch
from vsel_platform.samples.reading import parse_batch
from vsel_platform.samples.sample import Conversation, EmbeddedImage, ImageRecord, Rejected, Sample, SourceRow
from vsel_platform.samples.tasks import TaskAssigner
from vsel_platform.samples.validation import identify, read_row
from vsel_platform.tables import TABLES

ROW_DIGEST_BYTES = 16


@dataclass(slots=True)
class Processed:
    """What became of a batch.

    `accepted`: position, digest (32 bytes sample_id + 16 bytes hash of the row), sample_id, conversation,
    image_ids, n_turns, n_characters, row_json, task_key, source_id. `rejected`: the `quarantine` columns.
    `images`: the `images` columns, once per distinct image of the batch. `blobs`: bytes of embedded images.
    """

    accepted: Any
    rejected: Any
    images: Any
    blobs: dict[str, bytes] = field(default_factory=dict)

    @property
    def n_rows(self) -> int:
        """Rows of the batch."""
        return int(self.accepted.num_rows + self.rejected.num_rows)


class BatchProcessor:
    """Everything that one dataset's settings say about its rows."""

    def __init__(self, settings: DatasetSettings) -> None:
        self.format: Format = reader(settings.format)
        self.images = ImageIndex(settings.image_root or default_root(settings.source), settings.images)
        self.tasks = TaskAssigner(settings.task)

    def process(self, batch: RawBatch | ValueBatch) -> Processed:
        """Tables of a batch; every row is in `accepted` or in `rejected`."""
        rejected: list[Rejected] = []
        read: list[tuple[SourceRow, Conversation]] = []
        for row in parse_batch(batch):
            result = row if isinstance(row, Rejected) else read_row(row, self.format)
            if isinstance(result, Rejected):
                rejected.append(result)
            elif isinstance(row, SourceRow):
                read.append((row, result))
        self.images.prepare(image for _, conversation in read for image in conversation.images)
        samples: list[Sample] = []
        tasks: list[str] = []
        blobs: dict[str, bytes] = {}
        for row, conversation in read:
            sample = identify(row, conversation, self.images)
            if isinstance(sample, Rejected):
                rejected.append(sample)
                continue
            samples.append(sample)
            tasks.append(self.tasks.key(row.value, sample.image_paths if sample.images else (), row.position))
            blobs.update((i.image_id, i.data) for i in conversation.images if isinstance(i, EmbeddedImage))
        rejected.sort(key=lambda row: row.position)
        return Processed(_accepted(samples, tasks), _quarantine(rejected), _images(samples), blobs)


def row_digest(row_json: bytes) -> bytes:
    """Hash of a row's compact JSON text: the first 16 bytes of its sha256."""
    return hashlib.sha256(row_json).digest()[:ROW_DIGEST_BYTES]


def _accepted(samples: list[Sample], tasks: list[str]) -> Any:
    import pyarrow as pa

    columns = {
        "position": pa.array([s.position for s in samples], pa.int64()),
        "digest": pa.array([bytes.fromhex(s.sample_id) + row_digest(s.row_json) for s in samples], pa.binary()),
        "sample_id": pa.array([s.sample_id for s in samples], pa.string()),
        "conversation": pa.array([s.conversation for s in samples], pa.string()),
        "image_ids": pa.array([[i.image_id for i in s.images] for s in samples], pa.list_(pa.string())),
        "n_turns": pa.array([s.n_turns for s in samples], pa.int32()),
        "n_characters": pa.array([s.n_characters for s in samples], pa.int64()),
        "row_json": pa.array([s.row_json for s in samples], pa.string()),
        "task_key": pa.array(tasks, pa.string()),
        "source_id": pa.array([s.source_id for s in samples], pa.string()),
    }
    return pa.table(columns)


def _quarantine(rows: list[Rejected]) -> Any:
    import pyarrow as pa

    values = [[getattr(row, name) for row in rows] for name in TABLES["quarantine"].column_names]
    schema = TABLES["quarantine"].arrow_schema()
    arrays = [pa.array(column, kind.type) for column, kind in zip(values, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def _images(samples: list[Sample]) -> Any:
    import pyarrow as pa

    distinct: dict[str, ImageRecord] = {}
    for sample in samples:
        for image in sample.images:
            distinct.setdefault(image.image_id, image)
    schema = TABLES["images"].arrow_schema()
    records = distinct.values()
    arrays = [pa.array([getattr(r, name) for r in records], schema.field(name).type) for name in schema.names]
    return pa.Table.from_arrays(arrays, schema=schema)
