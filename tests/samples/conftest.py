"""Rows, images and a sink for the tests of ingest."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from vsel_platform.config import DatasetSettings, ImageSettings
from vsel_platform.samples.rows import whole_row
from vsel_platform.tables import TABLES

Row = dict[str, Any]


class MemorySink:
    """Keeps what an ingest writes."""

    def __init__(self) -> None:
        self.manifests: list[pa.Table] = []
        self.quarantines: list[pa.Table] = []
        self.shards: dict[str, tuple[pa.Table, pa.Table]] = {}
        self.blobs: dict[str, bytes] = {}

    def manifest(self, batch: pa.Table) -> None:
        assert batch.schema == TABLES["manifest"].arrow_schema()
        self.manifests.append(batch)

    def quarantine(self, batch: pa.Table) -> None:
        assert batch.schema == TABLES["quarantine"].arrow_schema()
        self.quarantines.append(batch)

    def shard(self, name: str, samples: pa.Table, images: pa.Table) -> None:
        assert samples.schema == TABLES["samples"].arrow_schema()
        assert images.schema == TABLES["images"].arrow_schema()
        self.shards[name] = (samples, images)

    def blob(self, image_id: str, data: bytes) -> str:
        self.blobs[image_id] = data
        return f"memory/{image_id}"

    @property
    def manifest_rows(self) -> list[Row]:
        return [row for batch in self.manifests for row in batch.to_pylist()]

    @property
    def quarantine_rows(self) -> list[Row]:
        return [row for batch in self.quarantines for row in batch.to_pylist()]

    @property
    def sample_rows(self) -> dict[str, Row]:
        return {row["sample_id"]: row for samples, _ in self.shards.values() for row in samples.to_pylist()}

    @property
    def image_rows(self) -> list[Row]:
        return [row for _, images in self.shards.values() for row in images.to_pylist()]

    def source_rows(self) -> list[bytes]:
        """Text of every accepted row, in source order, put together from what was stored."""
        names = ("row_json", "turns_key", "conversation")
        kept = {sample: [row[name] for name in names] for sample, row in self.sample_rows.items()}
        rows = self.manifest_rows
        return [row["row_json"].encode() if row["row_json"] else whole_row(*kept[row["sample_id"]]) for row in rows]

    def contents(self) -> tuple[object, ...]:
        """Everything that was written, for comparing two ingests."""
        shards = {k: (a.to_pylist(), b.to_pylist()) for k, (a, b) in self.shards.items()}
        return (self.manifest_rows, self.quarantine_rows, shards, self.blobs)


@pytest.fixture(scope="session")
def new_sink() -> Callable[[], MemorySink]:
    return MemorySink


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
def make_row() -> Callable[..., Row]:
    """A good LLaVA row; keywords replace its keys, None removes one."""

    def make(number: int = 0, **changes: Any) -> Row:
        row: Row = {
            "id": f"row-{number}",
            "image": f"{number}.png",
            "conversations": [
                {"from": "human", "value": f"<image>\nWhat is number {number}?"},
                {"from": "gpt", "value": f"It is {number}."},
            ],
        }
        row.update(changes)
        return {key: value for key, value in row.items() if value is not None}

    return make


@pytest.fixture
def make_settings(tmp_path: Path) -> Callable[..., DatasetSettings]:
    """Settings for a source file with the given content (rows, or text as it is)."""

    def make(
        content: object, *, name: str = "rows.json", check: str = "none", image: Row | None = None, **more: Any
    ) -> DatasetSettings:
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
        images = ImageSettings.model_validate({"check": check, **(image or {})})
        return DatasetSettings(source=str(path), images=images, **more)

    return make


@pytest.fixture
def png() -> Callable[..., bytes]:
    """Bytes of a small image."""

    def make(color: int = 0, size: tuple[int, int] = (4, 3), form: str = "PNG") -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", size, (color % 256, color // 256 % 256, 7)).save(buffer, form)
        return buffer.getvalue()

    return make
