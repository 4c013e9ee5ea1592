"""A batch of found rows to Arrow tables: parse, validate, identify. Pure: the same batch gives the same tables,
in whichever process it runs.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from vsel_platform.config import DatasetSettings
from vsel_platform.samples.arrow import digests, number_lists, numbers, record_batch, string_lists, strings
from vsel_platform.samples.collector import collector_paused
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
SAMPLE_KEY_BYTES = 32
DIGEST_BYTES = SAMPLE_KEY_BYTES + ROW_DIGEST_BYTES
GROUP_ROWS = 256  # rows whose images are read together; few, so that the same memory is used again


@dataclass(slots=True)
class Processed:
    """What became of a batch, as record batches.

    `accepted`: see `accepted_schema`. `rejected`: the `quarantine` columns. `images`: the `images` columns, once
    per distinct image of the batch, in order of appearance. `blobs`: bytes of embedded images.
    """

    accepted: Any
    rejected: Any
    images: Any
    blobs: dict[str, bytes] = field(default_factory=dict)

    @property
    def n_rows(self) -> int:
        """Rows of the batch."""
        return int(self.accepted.num_rows + self.rejected.num_rows)


@dataclass(slots=True)
class _Found:
    samples: list[Sample] = field(default_factory=list)
    tasks: list[bytes] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)


class BatchProcessor:
    """Everything that one dataset's settings say about its rows."""

    def __init__(self, settings: DatasetSettings) -> None:
        self.format: Format = reader(settings.format)
        self.images = ImageIndex(settings.image_root or default_root(settings.source), settings.images)
        self.tasks = TaskAssigner(settings.task)

    def process(self, batch: RawBatch | ValueBatch) -> Processed:
        """Tables of a batch; every row is in `accepted` or in `rejected`."""
        found = _Found()
        rows = parse_batch(batch)
        with collector_paused():
            while group := list(islice(rows, GROUP_ROWS)):
                self._process_group(group, found)
        found.rejected.sort(key=lambda row: row.position)
        return _tables(found)

    def _process_group(self, rows: list[SourceRow | Rejected], found: _Found) -> None:
        read: list[tuple[SourceRow, Conversation]] = []
        for row in rows:
            result = row if isinstance(row, Rejected) else read_row(row, self.format)
            if isinstance(row, SourceRow) and isinstance(result, Conversation):
                read.append((row, result))
            elif isinstance(result, Rejected):
                found.rejected.append(result)
        self.images.prepare(image for _, conversation in read for image in conversation.images)
        for row, conversation in read:
            sample = identify(row, conversation, self.images)
            if isinstance(sample, Rejected):
                found.rejected.append(sample)
                continue
            found.samples.append(sample)
            found.tasks.append(self.tasks.key(row.value, sample.image_paths, row.position).encode())
            for image in conversation.images:
                if isinstance(image, EmbeddedImage):
                    found.blobs[image.image_id] = image.data


def row_digest(key: bytes, row_json: bytes) -> bytes:
    """Hash of a row: the first 16 bytes of the sha256 of its sample's identity (32 bytes) and its text as kept."""
    return hashlib.sha256(key + row_json).digest()[:ROW_DIGEST_BYTES]


def accepted_schema() -> Any:
    """Columns of accepted rows: those of `samples`, and what manifest and duplicates need.

    `digest` is the sample_id (32 bytes) and the hash of the row (16 bytes); `image_rows` counts in `images`.
    """
    import pyarrow as pa

    more = {
        "position": pa.int64(),
        "digest": pa.binary(DIGEST_BYTES),
        "image_rows": pa.list_(pa.int32()),
        "task_key": pa.string(),
        "source_id": pa.string(),
    }
    return pa.schema([*TABLES["samples"].arrow_schema(), *(pa.field(name, kind) for name, kind in more.items())])


def _tables(found: _Found) -> Processed:
    samples = found.samples
    records, image_rows = _distinct_images(samples)
    columns = {
        "sample_id": strings([s.sample_id.encode() for s in samples]),
        "conversation": strings([s.conversation for s in samples]),
        "image_ids": string_lists([[image.image_id.encode() for image in s.images] for s in samples]),
        "n_turns": numbers([s.n_turns for s in samples], "int32"),
        "n_characters": numbers([s.n_characters for s in samples], "int64"),
        "row_json": strings([s.row_json for s in samples]),
        "turns_key": strings([None if s.turns_key is None else s.turns_key.encode() for s in samples]),
        "position": numbers([s.position for s in samples], "int64"),
        "digest": digests([_digest(s) for s in samples], DIGEST_BYTES),
        "image_rows": number_lists(image_rows),
        "task_key": strings(found.tasks),
        "source_id": strings([s.source_id for s in samples]),
    }
    accepted = record_batch(accepted_schema(), columns)
    return Processed(accepted, _records("quarantine", found.rejected), _records("images", records), found.blobs)


def _digest(sample: Sample) -> bytes:
    key = bytes.fromhex(sample.sample_id)
    return key + row_digest(key, sample.row_json)


def _distinct_images(samples: list[Sample]) -> tuple[list[ImageRecord], list[list[int]]]:
    """Distinct images in order of appearance, and for each sample the numbers of its images among them."""
    distinct: dict[str, int] = {}
    records: list[ImageRecord] = []
    rows: list[list[int]] = []
    for sample in samples:
        numbers_of_sample = []
        for image in sample.images:
            row = distinct.setdefault(image.image_id, len(records))
            if row == len(records):
                records.append(image)
            numbers_of_sample.append(row)
        rows.append(numbers_of_sample)
    return records, rows


def _records(table: str, records: Sequence[Rejected | ImageRecord]) -> Any:
    """Record batch of a table whose columns are attributes (texts or integers) of `records`."""
    columns = {}
    for column in TABLES[table].columns:
        values = [getattr(record, column.name) for record in records]
        if column.type == "string":
            columns[column.name] = strings([None if v is None else v.encode() for v in values])
        else:
            columns[column.name] = numbers(values, column.type)
    return record_batch(TABLES[table].arrow_schema(), columns)
