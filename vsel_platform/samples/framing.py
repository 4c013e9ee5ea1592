"""Messages between the ingest and its worker processes: length-prefixed parts over pipes, no pickle."""

import struct
from typing import IO, Any

import numpy as np
import orjson

from vsel_platform.errors import DataError
from vsel_platform.samples.batches import Processed, accepted_schema
from vsel_platform.samples.raw import Fault, RawBatch
from vsel_platform.samples.sample import Reason
from vsel_platform.tables import TABLES

_LENGTH = struct.Struct("<q")


def write_parts(stream: IO[bytes], *parts: Any) -> None:
    """Write a message of byte-like parts."""
    stream.write(_LENGTH.pack(len(parts)))
    for part in parts:
        stream.write(_LENGTH.pack(memoryview(part).nbytes))
        stream.write(part)
    stream.flush()


def read_parts(stream: IO[bytes]) -> list[bytes] | None:
    """Read a message; None if the other side has closed. Raises EOFError inside a message."""
    head = stream.read(_LENGTH.size)
    if not head:
        return None
    (count,) = _LENGTH.unpack(head)
    return [_exactly(stream, _LENGTH.unpack(_exactly(stream, _LENGTH.size))[0]) for _ in range(count)]


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError(f"{len(data)} of {size} bytes")
    return data


def pack_batch(batch: RawBatch) -> list[Any]:
    """A raw batch as message parts."""
    faults = {str(i): [f.reason, f.detail, f.text.decode("latin-1")] for i, f in batch.faults.items()}
    head = orjson.dumps(
        {"position": batch.position, "faults": faults, "exact": sorted(batch.exact), "shallow": batch.shallow}
    )
    return [head, np.ascontiguousarray(batch.starts), np.ascontiguousarray(batch.ends), batch.data]


def unpack_batch(parts: list[bytes]) -> RawBatch:
    """The raw batch of `pack_batch`'s parts."""
    head = orjson.loads(parts[0])
    faults = {
        int(i): Fault(Reason(reason), detail, text.encode("latin-1"))
        for i, (reason, detail, text) in head["faults"].items()
    }
    starts, ends = (np.frombuffer(part, dtype=np.int64) for part in parts[1:3])
    return RawBatch(head["position"], parts[3], starts, ends, faults, frozenset(head["exact"]), head["shallow"])


def pack_processed(result: Processed) -> list[Any]:
    """The tables of a processed batch as message parts (Arrow record batches)."""
    return [batch.serialize() for batch in (result.accepted, result.rejected, result.images)]


def unpack_processed(parts: list[bytes]) -> Processed:
    """The processed batch of `pack_processed`'s parts, without copying. Raises DataError for a reported error."""
    import pyarrow as pa

    if len(parts) == 1:
        raise DataError(parts[0].decode())
    schemas = (accepted_schema(), TABLES["quarantine"].arrow_schema(), TABLES["images"].arrow_schema())
    batches = (pa.ipc.read_record_batch(part, schema) for part, schema in zip(parts, schemas, strict=True))
    return Processed(*batches)
