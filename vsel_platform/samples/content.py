"""Which content exists already: `sample_id` -> shard and hash of the row that is kept with it, compactly."""

from array import array
from collections.abc import Iterable, Iterator
from typing import Any

from vsel_platform.samples.batches import ROW_DIGEST_BYTES, row_digest


class KnownContent:
    """Content of a store, about 200 bytes per sample. Grows while a dataset is ingested.

    Shards are numbered; the one that is being filled has a number before it has a name.
    """

    def __init__(self) -> None:
        self.shards: list[str] = []
        self._numbers: dict[str, int] = {}
        self._slots: dict[bytes, int] = {}
        self._shard_of = array("i")
        self._digests = bytearray()

    @classmethod
    def from_samples(cls, tables: Iterable[tuple[str, Any]]) -> "KnownContent":
        """Read (shard, samples table or record batch) pairs; of the columns `sample_id` and `row_json` are used.

        A sample that several shards hold counts for the first one.
        """
        known = cls()
        for shard, table in tables:
            number = known.number(shard)
            ids, rows = table["sample_id"].to_pylist(), table["row_json"].to_pylist()
            for sample_id, row in zip(ids, rows, strict=True):
                key = bytes.fromhex(sample_id)
                if key not in known._slots:
                    known.add(key, row_digest(key, row.encode()), number)
        return known

    def __len__(self) -> int:
        return len(self._slots)

    def sample_ids(self) -> Iterator[str]:
        """Identities of all samples."""
        return (key.hex() for key in self._slots)

    def number(self, shard: str) -> int:
        """Number of a shard; a new one if the name is new."""
        if shard not in self._numbers:
            self._numbers[shard] = len(self.shards)
            self.shards.append(shard)
        return self._numbers[shard]

    def open_shard(self) -> int:
        """Number for a shard that is not named yet."""
        self.shards.append("")
        return len(self.shards) - 1

    def close_shard(self, number: int, shard: str) -> None:
        """Name an open shard."""
        self.shards[number] = shard
        self._numbers[shard] = number

    def slot(self, key: bytes) -> int | None:
        """Slot of a sample (32-byte identity), None if it is new."""
        return self._slots.get(key)

    def add(self, key: bytes, digest: bytes, shard: int) -> int:
        """Add a new sample with the hash of its row; its slot."""
        slot = self._slots[key] = len(self._shard_of)
        self._shard_of.append(shard)
        self._digests += digest
        return slot

    def shard_of(self, slot: int) -> int:
        """Shard number of a slot."""
        return self._shard_of[slot]

    def holds_row(self, slot: int, digest: bytes) -> bool:
        """Whether the row kept with the content is the one with this hash."""
        at = slot * ROW_DIGEST_BYTES
        return self._digests[at : at + ROW_DIGEST_BYTES] == digest
