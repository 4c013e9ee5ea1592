"""Cuts the stream of accepted rows into shards of new content and names their manifest rows."""

from collections import Counter, deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vsel_platform.identity import hash_ids
from vsel_platform.samples.arrow import booleans, fixed_values, lengths, list_values, numbers, record_batch, strings
from vsel_platform.samples.batches import DIGEST_BYTES, SAMPLE_KEY_BYTES, Processed
from vsel_platform.samples.content import KnownContent
from vsel_platform.samples.rows import whole_row
from vsel_platform.samples.sample import QUOTED_CHARACTERS, Reason
from vsel_platform.samples.tasks import TaskAssigner
from vsel_platform.tables import TABLES

if TYPE_CHECKING:
    from vsel_platform.samples.ingest import IngestSink

SHARD_BYTES = 256 << 20
ROW_OVERHEAD_BYTES = 200
NAME_DIGITS = 12
IMAGE_ID_LENGTH = 64
REPEATED = b"the same row stands at an earlier position"


@dataclass(slots=True)
class Totals:
    """Counts over a whole ingest. `untasked` rows are those whose task is the default for want of another."""

    accepted: int = 0
    duplicates: int = 0
    new: int = 0
    text_only: int = 0
    images: int = 0
    new_images: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    tasks: Counter[str] = field(default_factory=Counter)
    untasked: int = 0


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
        rows = batch.accepted
        self.digests = fixed_values(rows["digest"], DIGEST_BYTES)
        self.image_rows = list_values(rows["image_rows"])
        self.image_ids = [name.decode() for name in fixed_values(batch.images["image_id"], IMAGE_ID_LENGTH)]
        texts = zip(lengths(rows["row_json"]), lengths(rows["conversation"]), strict=True)
        self.row_bytes = [row + conversation for row, conversation in texts]


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
        tasks: TaskAssigner,
    ) -> None:
        self.totals = Totals()
        self.new_shards: list[str] = []
        self._dataset, self._shard_rows, self._sink = dataset, shard_rows, sink
        self._known, self._tasks = known, tasks
        self._known_images = known_images if isinstance(known_images, set | dict) else set(known_images)
        self._seen_rows: set[bytes] = set()
        self._seen_slots = bytearray(len(known))
        self._images_seen: dict[str, bool] = {}  # image -> whether a published or open shard has it
        self._open = known.open_shard()
        self._open_rows = self._open_bytes = 0
        self._open_samples: list[Any] = []
        self._open_images: list[Any] = []
        self._waiting: deque[tuple[dict[str, Any], list[int], int]] = deque()

    def add(self, batch: Processed) -> None:
        """Take the next batch, in source order."""
        decisions = self._decide(batch)
        self._quarantine(batch, decisions.repeated)
        self.totals.accepted += len(decisions.kept)
        self.totals.duplicates += sum(decisions.duplicate)
        if decisions.kept:
            self._waiting.append((self._manifest(batch, decisions), decisions.shards, max(decisions.shards)))
        self._flush()

    def finish(self) -> None:
        """Close the last shard and hand over what waits."""
        if self._open_rows:
            self._close()
        self._flush()

    def _decide(self, batch: Processed) -> _Decisions:
        view, decisions, known, new = _BatchView(batch), _Decisions(), self._known, []
        for index, digest in enumerate(view.digests):
            key, row = digest[:SAMPLE_KEY_BYTES], digest[SAMPLE_KEY_BYTES:]
            if row in self._seen_rows:
                decisions.repeated.append(index)
                continue
            self._seen_rows.add(row)
            slot = known.slot(key)
            own_json = slot is not None and not known.holds_row(slot, row)
            if slot is None:
                slot = known.add(key, row, self._open)
                self._seen_slots.append(0)
                new.append(index)
                self._open_rows += 1
                self._open_bytes += view.row_bytes[index]
            decisions.kept.append(index)
            decisions.shards.append(known.shard_of(slot))
            decisions.duplicate.append(bool(self._seen_slots[slot]))
            decisions.own_json.append(own_json)
            self._seen_slots[slot] = 1
            self._count_images(view, index)
            if self._open_rows:
                self._open_bytes += ROW_OVERHEAD_BYTES + (view.row_bytes[index] if own_json else 0)
                if self._open_rows >= self._shard_rows or self._open_bytes >= SHARD_BYTES:
                    self._collect(batch, view, new)
                    self._close()
                    new = []
        self._collect(batch, view, new)
        return decisions

    def _count_images(self, view: _BatchView, index: int) -> None:
        rows = view.image_rows[index]
        if not rows:
            self.totals.text_only += 1
        for row in rows:
            image = view.image_ids[row]
            if image not in self._images_seen:
                self._images_seen[image] = image in self._known_images
                self.totals.images += 1

    def _collect(self, batch: Processed, view: _BatchView, new: list[int]) -> None:
        """Put rows of new content, and the images they bring in, into the open shard."""
        if not new:
            return
        self.totals.new += len(new)
        samples = batch.accepted.select(TABLES["samples"].column_names)
        whole = len(new) == samples.num_rows
        self._open_samples.append(samples if whole else samples.take(numbers(new, "int64")))
        images: list[int] = []
        for index in new:
            for row in view.image_rows[index]:
                if not self._images_seen[view.image_ids[row]]:
                    self._images_seen[view.image_ids[row]] = True
                    images.append(row)
        if images:
            self._open_images.append(self._store_blobs(batch, batch.images.take(numbers(images, "int64"))))
            self.totals.new_images += len(images)

    def _store_blobs(self, batch: Processed, images: Any) -> Any:
        if not batch.blobs:
            return images
        paths = []
        for name, path in zip(images["image_id"].to_pylist(), images["path"].to_pylist(), strict=True):
            paths.append(path or self._sink.blob(name, batch.blobs[name]))
        at = images.schema.get_field_index("path")
        return images.set_column(at, images.schema.field("path"), strings([path.encode() for path in paths]))

    def _close(self) -> None:
        import pyarrow as pa

        samples = pa.Table.from_batches(self._open_samples).sort_by("sample_id")
        images = pa.Table.from_batches(self._open_images, TABLES["images"].arrow_schema()).sort_by("image_id")
        name = f"{self._dataset}-{hash_ids(samples['sample_id'].to_pylist())[:NAME_DIGITS]}"
        self._open_samples, self._open_images = [], []
        self._sink.shard(name, samples, images)
        self._known.close_shard(self._open, name)
        self.new_shards.append(name)
        self._open = self._known.open_shard()
        self._open_rows = self._open_bytes = 0

    def _manifest(self, batch: Processed, decisions: _Decisions) -> dict[str, Any]:
        """Manifest columns of a batch, without the shard; copies, so that the batch itself can go."""
        import pyarrow as pa

        kept = numbers(decisions.kept, "int64")
        rows = batch.accepted.select(["position", "sample_id", "task_key", "source_id"]).take(kept)
        keys = rows["task_key"].dictionary_encode()
        tasks = strings([name.encode() for name in self._count_tasks(keys)])
        if any(decisions.own_json):
            pairs = zip(decisions.kept, decisions.own_json, strict=True)
            row_json = strings([_whole_row(batch, index) if is_own else None for index, is_own in pairs])
        else:
            row_json = pa.nulls(len(decisions.kept), pa.string())
        return {
            "position": rows["position"],
            "sample_id": rows["sample_id"],
            "task": tasks.take(keys.indices),
            "source_id": rows["source_id"],
            "is_duplicate": booleans(decisions.duplicate),
            "row_json": row_json,
        }

    def _count_tasks(self, keys: Any) -> list[str]:
        """Task names of the distinct keys of a batch, whose rows are counted."""
        names = []
        counts = Counter(keys.indices.to_pylist())
        for index, key in enumerate(keys.dictionary.to_pylist()):
            names.append(self._tasks.name(key))
            self.totals.tasks[names[-1]] += counts[index]
            if self._tasks.find(key) is None:
                self.totals.untasked += counts[index]
        return names

    def _flush(self) -> None:
        """Hand over manifest rows, in order, as far as the shards of all rows before them have names."""
        import pyarrow as pa

        schema = TABLES["manifest"].arrow_schema()
        while self._waiting and (not self._open_rows or self._waiting[0][2] < self._open):
            columns, shards, _ = self._waiting.popleft()
            columns["shard"] = strings([self._known.shards[n].encode() for n in shards])
            self._sink.manifest(pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema))

    def _quarantine(self, batch: Processed, repeated: list[int]) -> None:
        import pyarrow as pa

        batches = [batch.rejected]
        if repeated:
            texts = [_whole_row(batch, index).decode()[:QUOTED_CHARACTERS].encode() for index in repeated]
            columns = {
                "position": batch.accepted["position"].take(numbers(repeated, "int64")),
                "reason": strings([Reason.DUPLICATE_ROW.encode()] * len(repeated)),
                "detail": strings([REPEATED] * len(repeated)),
                "row_json": strings(texts),
            }
            batches.append(record_batch(TABLES["quarantine"].arrow_schema(), columns))
        refused = pa.Table.from_batches(batches)
        if refused.num_rows:
            self.totals.rejected.update(refused["reason"].to_pylist())
            self._sink.quarantine(refused.sort_by("position"))


def _whole_row(batch: Processed, index: int) -> bytes:
    """Text of the accepted row `index`, turns included."""
    row_json, turns_key, conversation = (
        batch.accepted[name][index].as_py() for name in ("row_json", "turns_key", "conversation")
    )
    return whole_row(row_json, turns_key, conversation)
