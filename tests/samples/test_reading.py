"""Rows of files: positions over all of them, marks and encodings, memory."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vsel_platform.errors import DataError
from vsel_platform.samples import reading
from vsel_platform.samples.reading import SourceReader, parse_batch, read_rows
from vsel_platform.samples.sample import Rejected
from vsel_platform.samples.source import hash_file


def numbered(count: int) -> list[dict[str, Any]]:
    return [{"id": i, "conversations": [{"from": "human", "value": f"text {i}"}]} for i in range(count)]


def values(file: str) -> list[Any]:
    rows = [row for batch in read_rows([file]) for row in batch]
    assert not [row for row in rows if isinstance(row, Rejected)]
    return [row.value for row in rows if not isinstance(row, Rejected)]


def write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def test_positions_count_over_files_and_the_digests_are_those_of_the_files(tmp_path: Path) -> None:
    files = [
        write(tmp_path / "a.json", json.dumps(numbered(3)).encode()),
        write(tmp_path / "b.jsonl", b'{"id": 1}\n{"id": 2}\n'),
        write(tmp_path / "c.json", b'{"id": 3}\n'),
    ]
    reader = SourceReader(files)
    rows = [row for batch in reader.batches() for row in parse_batch(batch)]
    assert [row.position for row in rows] == list(range(6))
    assert reader.digests == [hash_file(file) for file in files]
    assert reader.bytes_read == sum(Path(file).stat().st_size for file in files)


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_a_byte_order_mark_is_skipped(tmp_path: Path, name: str) -> None:
    text = json.dumps(numbered(2)[0]) + "\n" if name.endswith("l") else json.dumps(numbered(1))
    file = write(tmp_path / name, b"\xef\xbb\xbf" + text.encode())
    assert values(file) == numbered(1)


@pytest.mark.parametrize("content", [b"", b"  \n", b"\xef\xbb\xbf"])
def test_an_empty_file_has_no_rows(tmp_path: Path, content: bytes) -> None:
    assert list(read_rows([write(tmp_path / "rows.json", content)])) == []


@pytest.mark.parametrize(
    ("content", "kind"),
    [(b"\x1f\x8b\x08\0", "gzip"), (b"PK\x03\x04", "zip"), ("[]".encode("utf-16"), "UTF-16")],
)
def test_a_file_that_is_not_text_is_named_for_what_it_is(tmp_path: Path, content: bytes, kind: str) -> None:
    with pytest.raises(DataError, match=kind):
        list(read_rows([write(tmp_path / "rows.json", content)]))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file at .*gone\.json"):
        list(read_rows([str(tmp_path / "gone.json")]))


MEMORY_PROBE = """
import resource, sys
from vsel_platform.samples.reading import SourceReader, parse_batch
rows = 0
before = None
for batch in SourceReader([sys.argv[1]]).batches():
    rows += sum(1 for _ in parse_batch(batch))
    if before is None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(rows, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("broken", [False, True])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, broken: bool) -> None:
    row = json.dumps({"id": 1, "conversations": [{"from": "human", "value": "word " * 200}]})
    count = 50_000
    damaged = row.replace('"id"', '"id', 1)
    with (tmp_path / "rows.json").open("w") as file:
        file.write("[" + (damaged + "," if broken else "") + ",".join([row] * count) + "]")
    assert (tmp_path / "rows.json").stat().st_size > 50 << 20
    command = [sys.executable, "-c", MEMORY_PROBE, str(tmp_path / "rows.json")]
    out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(reading.__file__).parents[2])
    rows, growth_mib = map(int, out.stdout.split())
    assert rows == count + broken
    assert growth_mib < 60
