"""The best 15 % of every task among 10 million score rows, through the SQL catalog, against pandas on the same files.

`python benchmarks/bench_catalog.py [--rows N]`: exit code 1 if the query takes 4 s or more, or the results differ.
Both start from the store's files and end with the selected ids in memory; the query's time includes the start of its
process, the check of the text and the opening of the catalog.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from vsel_platform.storage.parquet import ROWS_PER_FILE
from vsel_platform.storage.sql import QueryLimits, run_query
from vsel_platform.storage.store import Store

if TYPE_CHECKING:
    import pandas as pd

LIMIT_S = 4.0
RUNS = 3
SHARE = 0.15
DATASETS, TASKS = 10, 20
QUERY = f"""
WITH size AS (
    SELECT task, CAST(ceil({SHARE} * count(typicality)) AS BIGINT) AS n, quantile_disc(typicality, {1 - SHARE}) AS floor
    FROM presel_scores
    GROUP BY task
)
SELECT task, sample_id
FROM presel_scores JOIN size USING (task)
WHERE typicality >= floor
QUALIFY row_number() OVER (PARTITION BY task ORDER BY typicality DESC, sample_id) <= n
"""  # noqa: S608 - constants


def publish(store: Store, rows: int) -> None:
    """Publish scores of distinct rows with random ids; every fiftieth typicality is NULL, many are equal."""
    generator = np.random.default_rng(0)
    for number in range(DATASETS):
        count = rows * (number + 1) // DATASETS - rows * number // DATASETS
        chunks = _chunks(generator, count)
        store.publish("presel_scores", {"dataset": f"d{number}", "mode": "default"}, chunks)


def _chunks(generator: np.random.Generator, rows: int) -> Iterator[pa.Table]:
    for start in range(0, rows, ROWS_PER_FILE):
        n = min(ROWS_PER_FILE, rows - start)
        names = pa.array([f"task_{number:02d}" for number in range(TASKS)])
        reference = generator.random(n) < 0.05
        yield pa.table(
            {
                "sample_id": _ids(generator, n),
                "task": names.take(pa.array(generator.integers(0, TASKS, n))),
                "image_id": _ids(generator, n),
                "is_reference": reference,
                "relevance": pa.array(generator.random(n), mask=~reference),
                "cluster": pa.array(generator.integers(0, 100, n), pa.int32()),
                "typicality": pa.array(generator.random(n).round(6), mask=generator.random(n) < 0.02),
            }
        )


def _ids(generator: np.random.Generator, count: int) -> pa.Array:
    text = generator.bytes(32 * count).hex()
    offsets = np.arange(0, 64 * count + 1, 64, dtype=np.int32)
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(text.encode()))


def with_pandas(store: Store) -> "pd.DataFrame":
    """The usual way: read all files into one frame, sort, rank inside the tasks."""
    import pandas as pd

    files = [file.path for pointer in store.pointers("presel_scores") for file in pointer.files]
    columns = ["task", "sample_id", "typicality"]
    frame = pd.concat([pd.read_parquet(store.files.path(path), columns=columns) for path in files])
    frame = frame.dropna(subset="typicality").sort_values(["typicality", "sample_id"], ascending=[False, True])
    tasks = frame.groupby("task")
    size = np.ceil((SHARE * tasks["typicality"].transform("size")).round(6))
    best: pd.DataFrame = frame[tasks.cumcount() < size]
    return best


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as name:
        store = Store(str(Path(name) / "store"))
        publish(store, rows)
        times = []
        for _ in range(RUNS):
            start = time.perf_counter()
            result = run_query(store, QUERY, limits=QueryLimits(rows=rows))
            times.append(time.perf_counter() - start)
        ours = min(times)
        start = time.perf_counter()
        frame = with_pandas(store)
        baseline = time.perf_counter() - start
    selected = set(zip(*(column.to_pylist() for column in result.arrow.columns), strict=True))
    equal = selected == set(zip(frame["task"], frame["sample_id"], strict=True)) and len(selected) == len(frame)
    print(f"{rows:,} rows, {TASKS} tasks, {DATASETS} partitions; {len(frame):,} rows selected; equal: {equal}")
    runs = ", ".join(f"{seconds:.2f}" for seconds in times)
    print(f"pandas {baseline:.2f} s; catalog, best of {runs} s: {ours:.2f} s (limit {LIMIT_S:g} s)")
    print(f"ratio {baseline / ours:.1f} x")
    return int(ours >= LIMIT_S or not equal)


if __name__ == "__main__":
    raise SystemExit(main())
