"""Cuts the stream of accepted rows into shards of new content and names their manifest rows."""

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vsel_platform.identity import hash_ids
from vsel_platform.samples.batches import Processed
from vsel_platform.samples.content import KnownContent
from vsel_platform.samples.sample import Reason
from vsel_platform.tables import TABLES

if TYPE_CHECKING:
    from vsel_platform.samples.ingest import IngestSink

SHARD_BYTES = 256 << 20
ROW_OVERHEAD_BYTES = 200
SAMPLE_KEY_BYTES = 32
NAME_DIGITS = 12


@dataclass(slots=True)
class Totals:
    """Counts over a whole ingest."""

    accepted: int = 0
    duplicates: int = 0
    new: int = 0
    text_only: int = 0
    images: int = 0
    new_images: int = 0
    rejected: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class _Rows:
    """Decisions on the rows of one batch."""

    kept: list[int] = field(default_factory=list)
    shards: list[int] = field(default_factory=list)
    duplicate: list[bool] = field(default_factory=list)
    own_json: list[bool] = field(default_factory=list)
    repeated: list[int] = field(default_factory=list)


class ShardCutter:
    """Finds duplicates, collects new content into shards, hands everything to the sink in source order.

    A shard is closed when it has `shard_rows` rows, or when what waits for its name exceeds 256 MiB. Both
    depend on the rows alone, so a repeated ingest cuts at the same places.
    """

    def __init__(
        self,
        dataset: str,
        shard_rows: int,
        known: KnownContent,
        known_images: Collection[str],
        sink: "IngestSink",
        task_name: Callable[[str], str],
    ) -> None:
        self.totals = Totals()
        self.new_shards: list[str] = []
        self._dataset, self._shard_rows, self._sink = dataset, shard_rows, sink
        self._known, self._task_name = known, task_name
        self._known_images = known_images if isinstance(known_images, set | dict) else set(known_images)
        self._seen_rows: set[bytes] = set()
        self._seen_samples = bytearray(len(known))
        self._seen_images: set[bytes] = set()
        self._open = known.next_number()
        self._samples: list[Any] = []
        self._images: list[Any] = []
        self._open_rows = self._waiting_bytes = 0
        self._waiting: list[tuple[Any, list[int]]] = []
