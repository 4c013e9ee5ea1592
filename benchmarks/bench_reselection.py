"""Reselection after 1 % new rows against the first run: time spent on signals, and what was computed.

`python benchmarks/bench_reselection.py`: exit code 1 if the signals of the new rows take more than 3 % of the first
run's signal time, or anything but the new rows is computed. The dataset and the models are the demo's.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import orjson

from vsel_platform.config import load_project
from vsel_platform.demo.project import append_demo_rows, write_demo_project
from vsel_platform.pipeline.context import Context, StageResult
from vsel_platform.pipeline.drive import drive

SIGNALS = ("image_embeddings", "reference_model", "losses")
LIMIT = 0.03


def spent(results: list[StageResult]) -> tuple[float, int]:
    """Seconds spent on signals, and contents computed."""
    signals = [result for result in results if result.stage in SIGNALS]
    return sum(r.seconds for r in signals), sum(r.computed for r in signals)


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="presel_15")
    recipe = parser.parse_args().recipe
    with tempfile.TemporaryDirectory() as name:
        file = write_demo_project(Path(name))
        project = load_project(file)
        first_s, first_n = spent(drive(Context(project), [recipe], train=False, log=print))
        source = Path(project.resolve(next(iter(project.datasets.values())).source))
        rows = len(orjson.loads(source.read_bytes()))
        added = append_demo_rows(file)
        again_s, again_n = spent(drive(Context(project), [recipe], train=False, log=print))
        third_s, third_n = spent(drive(Context(project), [recipe], train=False, log=print))
    print(f"baseline, first run: {first_s:.1f} s of signals, {first_n:,} contents computed, {rows:,} rows")
    print(f"after {added:,} new rows ({added / rows:.2%}): {again_s:.2f} s, {again_n:,} computed")
    print(f"ratio {again_s / first_s:.4f} (limit {LIMIT}); a third run computed {third_n} contents in {third_s:.2f} s")
    # An image embedding, and two losses if a new row belongs to the reference subset, for each new row at most.
    recomputed = again_n > 2 * added or third_n > 0
    return int(again_s / first_s > LIMIT or recomputed)


if __name__ == "__main__":
    sys.exit(main())
