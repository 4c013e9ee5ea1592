"""Child process of the `subprocess` backend: the engine's worker, with its progress sent over Dagster Pipes."""

import ctypes
import signal
import sys
from pathlib import Path

import orjson
from dagster_pipes import open_dagster_pipes

from vsel_platform.worker import Job, RateLimitedProgress, run_job

PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """On Linux, end when the step's process ends, however that happens: nobody would read the result.

    Without it a worker whose run was killed would go on beside the worker of the next run.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """`python -m resources.pipes_worker JOB_FILE RESULT_FILE`."""
    end_with_parent()
    job = Job.model_validate_json(Path(sys.argv[1]).read_bytes())
    with open_dagster_pipes() as pipes:
        result = run_job(job, RateLimitedProgress(pipes.log.info))
        Path(sys.argv[2]).write_bytes(orjson.dumps(result.to_dict()))


if __name__ == "__main__":
    main()
