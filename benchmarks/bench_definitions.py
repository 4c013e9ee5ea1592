"""Loading the deployment against importing Dagster alone: what our own modules add.

`python benchmarks/bench_definitions.py`: exit code 1 if the median load takes 2.5 s or more, or a heavy library
is imported.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT_S = 2.5
HEAVY = ("torch", "transformers", "peft", "lancedb", "sklearn", "faiss")
CODE = """
import sys, time
start = time.perf_counter()
import {module}
print(time.perf_counter() - start, *[name for name in {heavy!r} if name in sys.modules])
"""


def load(module: str, home: str) -> tuple[float, list[str]]:
    """Seconds to import `module` in a fresh process, and the heavy libraries that came with it."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DAGSTER_HOME": home}
    code = CODE.format(module=module, heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, *heavy = done.stdout.split()
    return float(seconds), heavy


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as home:
        load("definitions", home)  # fills the file cache, for both
        baseline = statistics.median(load("dagster", home)[0] for _ in range(runs))
        results = [load("definitions", home) for _ in range(runs)]
    ours = statistics.median(seconds for seconds, _ in results)
    heavy = sorted({name for _, names in results for name in names})
    print(
        f"baseline `import dagster`: {baseline:.2f} s; `import definitions`: {ours:.2f} s; ratio {ours / baseline:.2f}"
    )
    print(f"heavy libraries imported: {', '.join(heavy) or 'none'}; limit {LIMIT_S} s")
    return int(ours >= LIMIT_S or bool(heavy))


if __name__ == "__main__":
    sys.exit(main())
