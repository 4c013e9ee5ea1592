"""Which content exists already."""

import pyarrow as pa

from vsel_platform.samples.batches import row_digest
from vsel_platform.samples.content import KnownContent

ONE, TWO = "11" * 32, "22" * 32


def test_content_of_stored_shards_is_known_with_its_row() -> None:
    tables = [
        ("a-1", pa.table({"sample_id": [ONE], "row_json": ['{"id":1}']})),
        ("a-2", pa.table({"sample_id": [TWO, ONE], "row_json": ['{"id":2}', '{"id":3}']})),
    ]
    known = KnownContent.from_samples(tables)
    assert len(known) == 2
    slots = [known.slot(bytes.fromhex(name)) for name in (ONE, TWO)]
    assert [known.shards[known.shard_of(slot)] for slot in slots if slot is not None] == ["a-1", "a-2"]
    assert slots[0] is not None
    assert known.holds_row(slots[0], row_digest(bytes.fromhex(ONE), b'{"id":1}'))
    assert not known.holds_row(slots[0], row_digest(bytes.fromhex(ONE), b'{"id":3}'))


def test_new_content_has_no_slot_until_it_is_added() -> None:
    known = KnownContent()
    key = bytes.fromhex(ONE)
    assert known.slot(key) is None
    shard = known.open_shard()
    slot = known.add(key, row_digest(key, b"{}"), shard)
    assert known.slot(key) == slot
    known.close_shard(shard, "named")
    assert known.shards[known.shard_of(slot)] == "named"
    assert known.number("named") == shard
