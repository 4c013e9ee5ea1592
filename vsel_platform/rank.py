"""Another process of a job (see `vsel_platform.ranks`): `python -m vsel_platform.rank JOB_FILE`."""

import os
import sys
from pathlib import Path

from vsel_platform.errors import VselError
from vsel_platform.ranks import joined
from vsel_platform.worker import Job, end_with_parent, run_shared

NAMES = ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK")


def main(arguments: list[str]) -> int:
    """Do this process's share of the job. An error reaches rank 0, which reports it."""
    end_with_parent()
    job = Job.model_validate_json(Path(arguments[0]).read_bytes())
    with joined({name: os.environ[name] for name in NAMES}, job.project.compute.device) as share:
        try:
            run_shared(job, lambda *_: None, share)
        except VselError as error:
            share.report(error)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
