"""Rows of source files as a stream in bounded memory, from any fsspec path.

JSON arrays and lines become raw batches, found by array operations and parsed later (perhaps in another
process); Parquet and Arrow files become batches of parsed rows.
"""

from collections.abc import Iterator
from typing import IO

import fsspec

from vsel_platform.errors import DataError
from vsel_platform.samples.arrays import array_batches, line_batches
from vsel_platform.samples.columnar import ValueBatch, table_batches
from vsel_platform.samples.parsing import parse_row
from vsel_platform.samples.raw import RawBatch
from vsel_platform.samples.sample import RefusedRow, Rejected, SourceRow, reject
from vsel_platform.samples.source import ARROW_SUFFIXES, PARQUET_SUFFIXES, hash_file, source_size
from vsel_platform.samples.window import READ_BYTES, Window

BATCH_BYTES = 2 << 20
UTF8_BOM = b"\xef\xbb\xbf"
NOT_TEXT = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


class SourceReader:
    """Reads the files of a source once, in order; afterwards `digests` holds the sha256 of each."""

    def __init__(self, files: list[str], *, batch_bytes: int = BATCH_BYTES) -> None:
        self.files = files
        self.digests: list[str] = []
        self.bytes_read = 0
        self._batch_bytes = batch_bytes

    def batches(self) -> Iterator[RawBatch | ValueBatch]:
        """Batches of rows; positions count over all files. Raises DataError for a file that is not text."""
        position = 0
        for file in self.files:
            if file.lower().endswith(PARQUET_SUFFIXES + ARROW_SUFFIXES):
                found = self._table_batches(file, position)
            else:
                found = self._json_batches(file, position)
            for batch in found:
                position = batch.position + len(batch)
                yield batch

    def _table_batches(self, file: str, position: int) -> Iterator[RawBatch | ValueBatch]:
        yield from table_batches(file, position)
        self.digests.append(hash_file(file))
        self.bytes_read += source_size([file])

    def _json_batches(self, file: str, position: int) -> Iterator[RawBatch | ValueBatch]:
        with _open(file) as stream:
            window = Window(stream, name=file, read_bytes=max(READ_BYTES, self._batch_bytes))
            before = self.bytes_read
            lines = _begin(window) or file.lower().endswith((".jsonl", ".ndjson"))
            split = line_batches if lines else array_batches
            for batch in split(window, position, self._batch_bytes):
                self.bytes_read = before + window.offset
                yield batch
            window.skip_rest()
            self.bytes_read = before + window.offset
            self.digests.append(window.sha256)


def _open(file: str) -> IO[bytes]:
    try:
        stream: IO[bytes] = fsspec.open(file, "rb").open()
    except FileNotFoundError as error:
        raise DataError(f"no file at {file}") from error
    return stream


def _begin(window: Window) -> bool:
    """Skip a byte order mark and white space; whether the file is lines (it does not begin with `[`)."""
    window.grow()
    for magic, kind in NOT_TEXT.items():
        if window.data.startswith(magic):
            raise DataError(f"{window.name} is {kind}, not UTF-8 text; convert or unpack it first")
    if window.data.startswith(UTF8_BOM):
        window.position = len(UTF8_BOM)
    return window.peek() != ord("[")


def read_rows(files: list[str], *, batch_bytes: int = BATCH_BYTES) -> Iterator[list[SourceRow | Rejected]]:
    """Rows of the files in batches, in order; what cannot be parsed is a `Rejected` in its place."""
    for batch in SourceReader(files, batch_bytes=batch_bytes).batches():
        yield list(parse_batch(batch))


def parse_batch(batch: RawBatch | ValueBatch) -> Iterator[SourceRow | Rejected]:
    """Parse the elements of a batch, one result for each, in order."""
    if isinstance(batch, ValueBatch):
        yield from batch.rows
        return
    starts, ends = batch.starts.tolist(), batch.ends.tolist()
    exact, shallow = batch.exact, batch.shallow
    for index in range(len(batch)):
        position, fault = batch.position + index, batch.faults.get(index)
        if fault is not None:
            yield reject(position, fault.reason, fault.detail, fault.text)
            continue
        raw = batch.data[starts[index] : ends[index]]
        try:
            value, compact = parse_row(raw, exact=index in exact, shallow=shallow)
        except RefusedRow as error:
            yield reject(position, error.reason, error.detail, raw)
        else:
            yield SourceRow(position, value, compact)
