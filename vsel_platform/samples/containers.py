"""How rows stand in a file: a JSON array in some style, one JSON value per line, or Parquet.

`container_of` looks at a file. Rows written in the container it finds are, byte for byte, those of the source if
a JSON library wrote it in a usual style (indents, ASCII escapes, spaces or none); else they are equal as JSON.
"""

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import fsspec

from vsel_platform.errors import DataError
from vsel_platform.samples.sample import RefusedRow
from vsel_platform.samples.scanning import scan
from vsel_platform.samples.source import ARROW_SUFFIXES, PARQUET_SUFFIXES

HEAD_BYTES, TAIL_BYTES = 4 << 20, 64 << 10
UTF8_BOM = b"\xef\xbb\xbf"
INDENTS: tuple[int | str, ...] = (2, 4, 1, 3, 8, "\t")


@dataclass(frozen=True, slots=True)
class Container:
    """Layout of a file of rows. `opening`, `separator`, `closing` surround the rows; `row_indent`, `compact`,
    `ensure_ascii` are `json.dumps` options of one row, every line of which is shifted by `shift`.
    """

    kind: Literal["array", "lines", "parquet"]
    opening: bytes = b""
    separator: bytes = b""
    closing: bytes = b""
    row_indent: int | str | None = None
    compact: bool = False
    ensure_ascii: bool = True
    shift: str = ""
    schema: Any = None

    def encode(self, value: Any) -> bytes:
        """One row in this style."""
        comma = "," if self.compact or self.row_indent is not None else ", "
        separators = (comma, ":" if self.compact else ": ")
        text = json.dumps(value, indent=self.row_indent, ensure_ascii=self.ensure_ascii, separators=separators)
        return (text.replace("\n", "\n" + self.shift) if self.shift else text).encode("utf-8")


def json_array(*, indent: int | None = None, ensure_ascii: bool = True) -> Container:
    """The array that `json.dump(rows, file, indent=indent, ensure_ascii=ensure_ascii)` writes."""
    if indent is None:
        return Container("array", b"[", b", ", b"]", ensure_ascii=ensure_ascii)
    margin = "\n" + " " * indent
    return Container(
        "array",
        b"[" + margin.encode(),
        b"," + margin.encode(),
        b"\n]",
        row_indent=indent,
        ensure_ascii=ensure_ascii,
        shift=" " * indent,
    )


def json_lines(*, ensure_ascii: bool = True) -> Container:
    """One row per line."""
    return Container("lines", b"", b"\n", b"\n", ensure_ascii=ensure_ascii)


def parquet(schema: Any = None) -> Container:
    """Parquet; without a schema the first rows give it."""
    return Container("parquet", schema=schema)


def container_of(file: str) -> Container:
    """The container of a source file. Raises DataError if the file is missing."""
    try:
        if file.lower().endswith(PARQUET_SUFFIXES + ARROW_SUFFIXES):
            return parquet(_table_schema(file))
        with fsspec.open(file, "rb") as stream:
            head = stream.read(HEAD_BYTES)
            stream.seek(max(0, stream.seek(0, io.SEEK_END) - TAIL_BYTES))
            tail = stream.read()
    except FileNotFoundError as error:
        raise DataError(f"no file at {file}") from error
    body = head.removeprefix(UTF8_BOM)
    if body.lstrip()[:1] != b"[" or file.lower().endswith((".jsonl", ".ndjson")):
        return _lines_container(body, tail)
    return _array_container(head, tail)


def _table_schema(file: str) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with fsspec.open(file, "rb") as stream:
        if file.lower().endswith(PARQUET_SUFFIXES):
            return pq.ParquetFile(stream).schema_arrow
        magic = stream.read(6)
        stream.seek(0)
        return (pa.ipc.open_file if magic == b"ARROW1" else pa.ipc.open_stream)(stream).schema


def _lines_container(body: bytes, tail: bytes) -> Container:
    first = body.lstrip().split(b"\n", 1)[0].strip()
    closing = b"\n" if tail.endswith(b"\n") or not tail else b""
    return replace(_styled(json_lines(), first, body), closing=closing)


def _array_container(head: bytes, tail: bytes) -> Container:
    """The array's own brackets and commas, as far as its first two rows and its end show them."""
    begin = head.index(b"[") + 1
    found = scan(head, begin, first=True)
    if not found.starts.size:
        return json_array()
    start, end = int(found.starts[0]), int(found.ends[0])
    shift = head[begin:start].rpartition(b"\n")[2].decode() if b"\n" in head[begin:start] else ""
    separator = b", " if not shift else b",\n" + shift.encode()
    # Elements that are not rows (a stray number) belong to no bracket or comma.
    if len(found.starts) > 1 and re.fullmatch(rb"\s*,\s*", head[end : found.starts[1]]):
        separator = head[end : found.starts[1]]
    opening = head[:start]
    if not re.fullmatch(rb"(?:\xef\xbb\xbf)?\s*\[\s*", opening):
        opening = b"[" + (b"\n" + shift.encode() if shift else b"")
    end_of_array = re.search(rb"\s*\]\s*$", tail)
    closing = end_of_array.group() if end_of_array else b"]"
    plain = Container("array", opening, separator, closing, shift=shift)
    return _styled(plain, head[start:end], head)


def _styled(container: Container, first_row: bytes, head: bytes) -> Container:
    """The container with the `json.dumps` options that reproduce its first row, if any do."""
    from vsel_platform.samples.parsing import parse_row

    ascii_only = head.isascii()
    container = replace(container, ensure_ascii=ascii_only)
    try:
        value, _ = parse_row(first_row, exact=True)
    except RefusedRow:
        return container
    for candidate in _candidates(container, multiline=b"\n" in first_row):
        if candidate.encode(value) == first_row:
            return candidate
    return container


def _candidates(container: Container, *, multiline: bool) -> Iterator[Container]:
    if not multiline:
        yield container
        yield replace(container, compact=True)
        return
    for indent in INDENTS:
        yield replace(container, row_indent=indent)
