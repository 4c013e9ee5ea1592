"""Progress on a terminal, or one line every few seconds where there is none."""

import sys

from vsel_platform.pipeline.context import ProgressCallback
from vsel_platform.worker import RateLimitedProgress


def console_progress() -> ProgressCallback:
    """Progress callback for the console: a line that is redrawn on a terminal, plain lines elsewhere."""
    if not sys.stderr.isatty():
        return RateLimitedProgress(lambda line: print(line, file=sys.stderr, flush=True), interval_s=10)
    return RateLimitedProgress(
        lambda line: print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True), interval_s=0.2
    )
