"""Ingest of a synthetic file of LLaVA-665K's size (665,298 rows, 40,688 of them text-only; images not opened),
against `json.load` and a loop over the rows that checks, identifies and writes the same tables.

`python benchmarks/bench_ingest.py [--rows N]`: exit code 1 if the ingest is slower than 50,000 rows/s, holds 1.5 GiB or
more (all its processes together), or finds other content than the loop. The speed counts at full size only.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

ROWS, TEXT_ONLY = 665_298, 40_688
LIMIT_ROWS_S = 50_000
LIMIT_GIB = 1.5
SAMPLE_S = 0.02
SHARD_ROWS = 10_000
SENTENCES = 20_000


def sentences(rng: random.Random) -> list[str]:
    """Sentences of 2 to 45 words, some with quotes, line breaks and letters beyond ASCII."""
    letters = "etaoinshrdlucmfwypvbgkqjxz"
    words = ["".join(rng.choices(letters, weights=range(26, 0, -1), k=rng.randint(2, 11))) for _ in range(8_000)]
    words += ["café", "naïve", "漢字", '"quoted"', "line\nbreak", "{x}", "[1]", "\\path"]
    return [" ".join(rng.choices(words, k=min(45, 2 + int(rng.expovariate(1 / 8.2))))) + "." for _ in range(SENTENCES)]


def row(rng: random.Random, number: int, pool: list[str], *, text_only: bool) -> dict[str, Any]:
    """A row with five pairs of turns on average."""
    turns: list[dict[str, str]] = []
    for pair in range(1 + min(19, int(rng.expovariate(1 / 4.5)))):
        tag = "<image>\n" if pair == 0 and not text_only else ""
        turns.append({"from": "human", "value": tag + rng.choice(pool)})
        turns.append({"from": "gpt", "value": f"{rng.choice(pool)} {rng.choice(pool) if pair % 3 == 0 else number}"})
    identity = f"{number:012d}"
    image = {} if text_only else {"image": f"coco/train2017/{identity}.jpg"}
    return {"id": identity, **image, "conversations": turns}


def write_source(path: Path, rows: int) -> int:
    """Write the file as `json.dump(indent=2)` does; its number of text-only rows."""
    rng = random.Random(0)  # noqa: S311 (made-up texts)
    pool = sentences(rng)
    n_text = round(rows * TEXT_ONLY / ROWS)
    text_only = set(rng.sample(range(rows), n_text))
    with path.open("w") as file:
        for number in range(rows):
            text = json.dumps(row(rng, number, pool, text_only=number in text_only), indent=2)
            file.write(("[\n  " if number == 0 else ",\n  ") + text.replace("\n", "\n  "))
        file.write("\n]")
    return n_text


class DirectorySink:
    """Writes every table as a Parquet file, compressed as the store does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        folder.mkdir()

    def _write(self, table: Any) -> None:
        import pyarrow.parquet as pq

        self._count += 1
        pq.write_table(table, self._folder / f"{self._count}.parquet", compression="zstd")

    def manifest(self, batch: Any) -> None:
        """Write manifest rows."""
        self._write(batch)

    def quarantine(self, batch: Any) -> None:
        """Write refused rows."""
        self._write(batch)

    def shard(self, name: str, samples: Any, images: Any) -> None:
        """Write a shard."""
        self._write(samples)
        self._write(images)

    def blob(self, image_id: str, data: bytes) -> str:
        """Refuse embedded images: the source has none."""
        raise ValueError(f"unexpected image {image_id} of {len(data)} bytes")


def with_ingest(source: Path, folder: Path) -> dict[str, Any]:
    """The platform's ingest."""
    from vsel_platform.config import DatasetSettings, ImageSettings
    from vsel_platform.identity import hash_ids
    from vsel_platform.samples.content import KnownContent
    from vsel_platform.samples.ingest import ingest

    settings = DatasetSettings(source=str(source), images=ImageSettings(check="none"), shard_rows=SHARD_ROWS)
    known = KnownContent()
    start = time.perf_counter()
    report = ingest(settings, DirectorySink(folder), dataset="llava", known=known)
    seconds = time.perf_counter() - start
    counts = [report.n_accepted, report.n_rejected, report.n_text_only, report.n_images, report.n_distinct]
    return {"seconds": seconds, "counts": counts, "content": hash_ids(known.sample_ids())}


def with_json_load(source: Path, folder: Path) -> dict[str, Any]:
    """The usual way: the whole file in memory, then one row at a time."""
    import hashlib

    import pyarrow as pa

    from vsel_platform.identity import hash_ids, sample_id

    roles = {"human": "user", "gpt": "assistant"}
    sink, columns, seen, n_text = DirectorySink(folder), [], set(), 0
    start = time.perf_counter()
    with source.open("rb") as file:
        rows = json.load(file)
    for position, item in enumerate(rows):
        turns = [(roles[turn["from"]], turn["value"]) for turn in item["conversations"]]
        images = [item["image"]] if "image" in item else []
        if sum(text.count("<image>") for _, text in turns) != len(images):
            raise ValueError(f"row {position}: images and tags disagree")
        n_text += not images
        ids = [hashlib.sha256(b"path:" + image.encode()).hexdigest() for image in images]
        name = sample_id(turns, ids)
        seen.add(name)
        columns.append((position, name, json.dumps(turns), ids, json.dumps(item)))
        if len(columns) == SHARD_ROWS or position == len(rows) - 1:
            sink.shard("", pa.table(dict(zip("abcde", map(list, zip(*columns, strict=True)), strict=True))), _nothing())
            columns.clear()
    counts = [len(rows), 0, n_text, len(rows) - n_text, len(seen)]
    return {"seconds": time.perf_counter() - start, "counts": counts, "content": hash_ids(seen)}


def _nothing() -> Any:
    import pyarrow as pa

    return pa.table({"image_id": pa.array([], pa.string())})


def measured(way: str, source: Path, folder: Path) -> tuple[dict[str, Any], float]:
    """Run one way in a process of its own; its result, and the most memory of all its processes together [GiB]."""
    command = [sys.executable, __file__, "--way", way, "--source", str(source), "--folder", str(folder / way)]
    root = str(Path(__file__).resolve().parents[1])
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root})
    process, peak = psutil.Process(child.pid), 0
    while child.poll() is None:
        peak = max(peak, _resident(process))
        time.sleep(SAMPLE_S)
    out = child.stdout.read() if child.stdout else ""
    if child.returncode:
        raise SystemExit(f"{way} failed with exit code {child.returncode}")
    return json.loads(out.splitlines()[-1]), peak / 2**30


def _resident(process: psutil.Process) -> int:
    """Resident bytes of a process and its children; pages they share count for each."""
    total = 0
    try:
        for member in [process, *process.children(recursive=True)]:
            total += member.memory_info().rss
    except psutil.NoSuchProcess:
        return total
    return total


def compare(rows: int) -> int:
    """Run both ways and print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "rows.json"
        n_text = write_source(source, rows)
        mib = source.stat().st_size / 2**20
        ours, ours_gib = measured("ingest", source, folder)
        baseline, baseline_gib = measured("json_load", source, folder)
    equal = ours["counts"] == baseline["counts"] and ours["content"] == baseline["content"]
    equal = equal and ours["counts"][:3] == [rows, 0, n_text]
    speed = rows / ours["seconds"]
    fast = speed >= LIMIT_ROWS_S or rows < ROWS
    print(f"{rows:,} rows, {n_text:,} text-only, {mib:,.0f} MiB; {os.cpu_count()} cores; equal: {equal}")
    print(f"json.load and a loop: {rows / baseline['seconds']:,.0f} rows/s, {baseline_gib:.2f} GiB")
    print(f"ingest: {speed:,.0f} rows/s (limit {LIMIT_ROWS_S:,}), {ours_gib:.2f} GiB (limit {LIMIT_GIB:g})")
    print(f"ratio {baseline['seconds'] / ours['seconds']:.1f} x in time, {baseline_gib / ours_gib:.1f} x in memory")
    return int(not (equal and fast and ours_gib < LIMIT_GIB))


def main() -> int:
    """Compare, or run one of the two ways."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--way", choices=["ingest", "json_load"], help=argparse.SUPPRESS)
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way is None:
        return compare(args.rows)
    run = with_ingest if args.way == "ingest" else with_json_load
    print(json.dumps(run(args.source, args.folder)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
