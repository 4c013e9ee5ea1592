"""Runs one heavy job (anything that loads a model): the same code in process and in a child process."""

import ctypes
import importlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict

from vsel_platform.config import Project
from vsel_platform.errors import ConfigError, NotMaterializedError, OutOfMemoryError, StorageError, VselError
from vsel_platform.models.devices import own_device
from vsel_platform.pipeline.context import Context, ProgressCallback, StageResult
from vsel_platform.ranks import ALONE, Share, device_of, started

# Stage -> function(Context, partition key); a string, so that naming a job imports no model code.
JOBS = {
    "image_embeddings": "vsel_platform.pipeline.embeddings:run",
    "vision_representations": "vsel_platform.pipeline.representations:run",
    "hidden_states": "vsel_platform.pipeline.hidden_states:run",
    "text_embeddings": "vsel_platform.pipeline.text_embeddings:run",
    "attention_maps": "vsel_platform.pipeline.attention:run",
    "base_losses": "vsel_platform.pipeline.base_losses:run",
    "reference_model": "vsel_platform.pipeline.reference:run_model",
    "losses": "vsel_platform.pipeline.losses:run",
    "finetuned_checkpoint": "vsel_platform.pipeline.training:run_checkpoint",
    "leakage": "vsel_platform.pipeline.leakage:run",
    "base_evaluation": "vsel_platform.pipeline.evaluation:run_base",
    "evaluation": "vsel_platform.pipeline.evaluation:run",
}

SIGNALS = (
    "image_embeddings",
    "vision_representations",
    "hidden_states",
    "text_embeddings",
    "attention_maps",
    "base_losses",
    "losses",
)
"""Signals of shards that a model gives."""
SHARED = (*SIGNALS, "reference_model", "finetuned_checkpoint")
"""Stages whose rows several processes can share."""
PR_SET_PDEATHSIG = 1


class Job(BaseModel):
    """One job: a stage, the key of its partition, and the whole project file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str
    key: str
    project: Project
    run_id: str = ""

    def to_json(self) -> bytes:
        """The job file's bytes."""
        return orjson.dumps(self.model_dump(mode="json"))


def run_job(job: Job, progress: ProgressCallback) -> StageResult:
    """Run a job in this process. Raises ConfigError for an unknown stage."""
    if job.stage not in JOBS:
        raise ConfigError(f"unknown stage {job.stage!r}; known: {', '.join(JOBS)}")
    compute = job.project.compute
    if compute.processes == 1 or job.stage not in SHARED:
        with own_device(compute.device) as device:
            return run_shared(job, progress, ALONE, device)
    with started(job.to_json(), compute.processes, compute.device, compute.threads) as share:
        return run_shared(job, progress, share)


def run_shared(job: Job, progress: ProgressCallback, share: Share, device: str = "") -> StageResult:
    """Run this process's share of a job; only what rank 0 returns is the result of the whole.

    `device` is that of a process alone; those of several are theirs by number.
    """
    compute = job.project.compute
    threads = compute.threads or (max(1, (os.cpu_count() or 1) // share.world) if share.world > 1 else 0)
    set_threads(threads)
    own = compute.model_copy(update={"device": device or device_of(share, compute.device)})
    project = job.project.model_copy(update={"compute": own})
    module, _, name = JOBS[job.stage].partition(":")
    stage: Callable[[Context, str], StageResult] = getattr(importlib.import_module(module), name)
    return stage(Context(project, job.run_id, progress, share), job.key)


def end_with_parent() -> None:
    """On Linux, end when the process that started this one ends, however that happens: nobody would read the result.

    Without it a worker whose run was killed would go on beside the worker of the next run.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


PROGRAM_FAULTS = (TypeError, AttributeError, NameError, LookupError, AssertionError, ArithmeticError)
"""What a fault of the platform itself raises: it comes again, however often a job is tried."""


def is_passing(error: Exception) -> bool:
    """Whether the same job may go well when it is tried again: what memory, storage or something unknown stopped."""
    if isinstance(error, VselError):
        return isinstance(error, OutOfMemoryError | StorageError) and not isinstance(error, NotMaterializedError)
    return not isinstance(error, PROGRAM_FAULTS)


def set_threads(threads: int) -> None:
    """Limit the CPU threads of torch and the numeric libraries; 0 leaves all cores."""
    if threads > 0:
        import torch

        os.environ["OMP_NUM_THREADS"] = str(threads)
        torch.set_num_threads(threads)


class RateLimitedProgress:
    """Progress lines with rows/s and the time left, at most one every `interval_s` seconds."""

    def __init__(self, emit: Callable[[str], None], interval_s: float = 2.0) -> None:
        self._emit = emit
        self._interval_s = interval_s
        self._start = time.monotonic()
        self._last = float("-inf")

    def __call__(self, message: str, done: int, total: int) -> None:
        """Report that `done` of `total` are finished."""
        now = time.monotonic()
        if now - self._last < self._interval_s and done < total:
            return
        self._last = now
        rate = done / max(now - self._start, 1e-9)
        left = (total - done) / rate if rate > 0 else 0.0
        self._emit(f"{done:,} of {total:,} {message}, {rate:,.1f}/s, {left:,.0f} s left")


def main(arguments: list[str]) -> int:
    """`python -m vsel_platform.worker JOB_FILE RESULT_FILE`: progress goes to standard error."""
    if len(arguments) != 2:
        sys.stderr.write("usage: python -m vsel_platform.worker JOB_FILE RESULT_FILE\n")
        return 2
    job = Job.model_validate_json(Path(arguments[0]).read_bytes())
    progress = RateLimitedProgress(lambda line: print(line, file=sys.stderr, flush=True))
    try:
        result: dict[str, Any] = run_job(job, progress).to_dict()
    except VselError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return error.exit_code
    Path(arguments[1]).write_bytes(orjson.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
