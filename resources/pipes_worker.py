"""Child process of the `subprocess` backend: the engine's worker, with its progress sent over Dagster Pipes."""

import sys
import traceback
from pathlib import Path
from typing import Any

import orjson
from dagster_pipes import open_dagster_pipes

from vsel_platform.errors import VselError
from vsel_platform.pipeline.context import ProgressCallback
from vsel_platform.worker import Job, RateLimitedProgress, end_with_parent, is_passing, run_job


def main() -> None:
    """`python -m resources.pipes_worker JOB_FILE RESULT_FILE`: the result is what the stage did, or why it failed."""
    end_with_parent()
    job = Job.model_validate_json(Path(sys.argv[1]).read_bytes())
    with open_dagster_pipes() as pipes:
        result = outcome(job, RateLimitedProgress(pipes.log.info))
        Path(sys.argv[2]).write_bytes(orjson.dumps(result))


def outcome(job: Job, progress: ProgressCallback) -> dict[str, Any]:
    """What a job did, or its `error` as one text, whether it is passing (worth another attempt) and its exit code.

    An error is a result, because all that the step learns from an exit code is its number. The traceback of one that
    nobody foresaw goes to standard error.
    """
    try:
        return run_job(job, progress).to_dict()
    except VselError as error:
        return {"error": str(error), "is_passing": is_passing(error), "exit_code": error.exit_code}
    except Exception as error:
        traceback.print_exc()
        text = f"{type(error).__name__}: {error}"
        return {"error": text, "is_passing": is_passing(error), "exit_code": VselError.exit_code}


if __name__ == "__main__":
    main()
