"""Where jobs that load a model run: in the step's process, or in a child process over Dagster Pipes."""

import os
import sys
import tempfile
from pathlib import Path

import dagster as dg
import orjson

from resources.failures import failure, failures
from resources.project import ROOT, ProjectResource
from vsel_platform.pipeline.context import StageResult
from vsel_platform.worker import Job, RateLimitedProgress, run_job


class ComputeBackend(dg.ConfigurableResource):  # type: ignore[misc]
    """Runs worker jobs as the project file's `compute.backend` says."""

    project: dg.ResourceDependency[ProjectResource]

    def run(self, context: dg.AssetExecutionContext, stage: str, key: str) -> StageResult:
        """Run one stage for one partition key and return what it did.

        Raises dagster.Failure with the error's own text; it is retried only where another attempt may go better.
        """
        project = self.project.project()
        job = Job(stage=stage, key=key, project=project, run_id=context.run_id)
        if project.compute.backend == "subprocess":
            return _run_child(context, job)
        with failures():
            return run_job(job, RateLimitedProgress(context.log.info))


def _run_child(context: dg.AssetExecutionContext, job: Job) -> StageResult:
    """Run a job in a child process. One that is killed makes the client raise; any other failure is its result."""
    with tempfile.TemporaryDirectory(prefix="vsel-job-") as name:
        job_file, result_file = Path(name) / "job.json", Path(name) / "result.json"
        job_file.write_bytes(job.to_json())
        threads = str(job.project.compute.threads or os.cpu_count() or 1)
        environment = {
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "OMP_NUM_THREADS": threads,
            # Threads that wait spin for microseconds, then sleep: without end they starve a busy machine, and
            # not at all (OMP_WAIT_POLICY=PASSIVE) they make training half as fast.
            "GOMP_SPINCOUNT": "10000",
        }
        command = [sys.executable, "-m", "resources.pipes_worker", str(job_file), str(result_file)]
        dg.PipesSubprocessClient().run(context=context, command=command, cwd=str(ROOT), env=environment)
        result = orjson.loads(result_file.read_bytes())
        if "error" in result:
            raise failure(result["error"], may_pass=result["is_passing"], exit_code=result["exit_code"])
        return StageResult(**result)
