"""Cuts the stream of accepted rows into shards of new content and names their manifest rows."""

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vsel_platform.identity import hash_ids
from vsel_platform.samples.batches import Processed
from vsel_platform.samples.content import KnownContent
from vsel_platform.samples.sample import QUOTED_CHARACTERS, Reason
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
class _Decisions:
    """What becomes of the rows of one batch: indices of kept and repeated rows, and facts on the kept ones."""

    kept: list[int] = field(default_factory=list)
    repeated: list[int] = field(default_factory=list)
    shards: list[int] = field(default_factory=list)
    duplicate: list[bool] = field(default_factory=list)
    own_json: list[bool] = field(default_factory=list)


class _BatchView:
    """Columns of a batch as Python lists, for the loop over its rows."""

    def __init__(self, batch: Processed) -> None:
        import pyarrow.compute as pc

        table = batch.accepted
        self.digests: list[bytes] = table["digest"].to_pylist()
        self.image_ids: list[list[str]] = table["image_ids"].to_pylist()
        self.conversation_bytes: list[int] = pc.binary_length(table["conversation"]).to_pylist()
        self.row_bytes: list[int] = pc.binary_length(table["row_json"]).to_pylist()
        self.image_rows = {name: i for i, name in enumerate(batch.images["image_id"].to_pylist())}


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
        self._seen_slots = bytearray(len(known))
        self._images_seen: dict[str, bool] = {}  # image -> whether a published or open shard has it
        self._open = known.open_shard()
        self._open_rows = self._open_bytes = 0
        self._open_samples: list[Any] = []
        self._open_images: list[Any] = []
        self._waiting: list[tuple[Any, list[int]]] = []

    def add(self, batch: Processed) -> None:
        """Take the next batch, in source order."""
        decisions = self._decide(batch)
        self._quarantine(batch, decisions.repeated)
        self.totals.accepted += len(decisions.kept)
        self.totals.duplicates += sum(decisions.duplicate)
        if decisions.kept:
            self._waiting.append((self._manifest(batch, decisions), decisions.shards))
        self._flush()

    def finish(self) -> None:
        """Close the last shard and hand over what waits."""
        if self._open_rows:
            self._close()
        self._flush()

    def _decide(self, batch: Processed) -> _Decisions:
        view, decisions, known = _BatchView(batch), _Decisions(), self._known
        new: list[int] = []
        for index, digest in enumerate(view.digests):
            key, row = digest[:SAMPLE_KEY_BYTES], digest[SAMPLE_KEY_BYTES:]
            if row in self._seen_rows:
                decisions.repeated.append(index)
                continue
            self._seen_rows.add(row)
            slot = known.slot(key)
            is_new = slot is None
            if slot is None:
                slot = known.add(key, row, self._open)
                self._seen_slots.append(0)
                new.append(index)
                self._open_rows += 1
                self._open_bytes += view.conversation_bytes[index] + view.row_bytes[index]
            own_json = not is_new and not known.holds_row(slot, row)
            decisions.kept.append(index)
            decisions.shards.append(known.shard_of(slot))
            decisions.duplicate.append(bool(self._seen_slots[slot]))
            decisions.own_json.append(own_json)
            self._seen_slots[slot] = 1
            self._note_images(view, index)
            if self._open_rows:
                self._open_bytes += ROW_OVERHEAD_BYTES + (view.row_bytes[index] if own_json else 0)
                if self._open_rows >= self._shard_rows or self._open_bytes >= SHARD_BYTES:
                    self._collect(batch, view, new)
                    self._close()
                    new = []
        self._collect(batch, view, new)
        return decisions

    def _note_images(self, view: _BatchView, index: int) -> None:
        images = view.image_ids[index]
        if not images:
            self.totals.text_only += 1
        for image in images:
            if image not in self._images_seen:
                self._images_seen[image] = image in self._known_images
                self.totals.images += 1

    def _collect(self, batch: Processed, view: _BatchView, new: list[int]) -> None:
        """Put rows of new content, and the images they bring in, into the open shard."""
        if not new:
            return
        self.totals.new += len(new)
        self._open_samples.append(batch.accepted.select(TABLES["samples"].column_names).take(new))
        images: dict[str, int] = {}
        for index in new:
            for image in view.image_ids[index]:
                if not self._images_seen[image]:
                    self._images_seen[image] = True
                    images[image] = view.image_rows[image]
        if images:
            self._open_images.append(self._store_blobs(batch, batch.images.take(list(images.values()))))
            self.totals.new_images += len(images)

    def _store_blobs(self, batch: Processed, images: Any) -> Any:
        import pyarrow as pa

        if not batch.blobs:
            return images
        paths = [
            self._sink.blob(row["image_id"], batch.blobs[row["image_id"]])
            if row["image_id"] in batch.blobs and not row["path"]
            else row["path"]
            for row in images.select(["image_id", "path"]).to_pylist()
        ]
        at = images.schema.get_field_index("path")
        return images.set_column(at, images.schema.field("path"), pa.array(paths, pa.string()))

    def _close(self) -> None:
        import pyarrow as pa

        samples = pa.concat_tables(self._open_samples)
        schema = TABLES["images"].arrow_schema()
        images = pa.concat_tables(self._open_images) if self._open_images else schema.empty_table()
        name = f"{self._dataset}-{hash_ids(samples['sample_id'].to_pylist())[:NAME_DIGITS]}"
        self._sink.shard(
            name,
            samples.sort_by("sample_id").cast(TABLES["samples"].arrow_schema()),
            images.sort_by("image_id").cast(schema),
        )
        self._known.close_shard(self._open, name)
        self.new_shards.append(name)
        self._open = self._known.open_shard()
        self._open_rows = self._open_bytes = 0
        self._open_samples, self._open_images = [], []

    def _manifest(self, batch: Processed, decisions: _Decisions) -> Any:
        """Manifest rows of a batch, without their shards."""
        import pyarrow as pa
        import pyarrow.compute as pc

        columns = ["position", "sample_id", "task_key", "source_id", "row_json"]
        rows = batch.accepted.select(columns).take(decisions.kept)
        own = pa.array(decisions.own_json, pa.bool_())
        tasks = {key: self._task_name(key) for key in rows["task_key"].unique().to_pylist()}
        return {
            "position": rows["position"],
            "sample_id": rows["sample_id"],
            "task": pa.array([tasks[key] for key in rows["task_key"].to_pylist()], pa.string()),
            "source_id": rows["source_id"],
            "is_duplicate": pa.array(decisions.duplicate, pa.bool_()),
            "row_json": pc.if_else(own, rows["row_json"], pa.scalar(None, pa.string())),
        }

    def _flush(self) -> None:
        """Hand over manifest rows, in order, as far as the shards of all rows before them have names."""
        import pyarrow as pa

        schema = TABLES["manifest"].arrow_schema()
        while self._waiting and (not self._open_rows or max(self._waiting[0][1]) < self._open):
            columns, numbers = self._waiting.pop(0)
            columns["shard"] = pa.array([self._known.shards[n] for n in numbers], pa.string())
            self._sink.manifest(pa.table([columns[name] for name in schema.names], schema=schema))

    def _quarantine(self, batch: Processed, repeated: list[int]) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        refused = batch.rejected
        if repeated:
            rows = batch.accepted.select(["position", "row_json"]).take(repeated)
            columns = {
                "position": rows["position"],
                "reason": pa.array([Reason.DUPLICATE_ROW.value] * len(repeated), pa.string()),
                "detail": pa.array(["the same row stands at an earlier position"] * len(repeated), pa.string()),
                "row_json": pc.utf8_slice_codeunits(rows["row_json"], 0, QUOTED_CHARACTERS),
            }
            schema = refused.schema
            more = pa.table([columns[name] for name in schema.names], schema=schema)
            refused = pa.concat_tables([refused, more]).sort_by("position")
        if refused.num_rows:
            self.totals.rejected.update(refused["reason"].to_pylist())
            self._sink.quarantine(refused)
