"""Jobs of the compute backends: a failed one ends in its error's own words, and only a passing one is tried again."""

import dagster as dg
import pytest

from resources import compute, pipes_worker
from resources.compute import ComputeBackend
from resources.failures import EXIT_CODE
from resources.project import ProjectResource
from vsel_platform.errors import DataError, NotMaterializedError, OutOfMemoryError, StorageError
from vsel_platform.pipeline.context import StageResult, no_progress
from vsel_platform.worker import Job, is_passing

RETRY = dg.RetryPolicy(max_retries=2, delay=0)
TEXT = "images of shard none has not been materialized"


def materialize(tmp_path, backend):
    """Materialize an asset whose job embeds a shard that does not exist."""
    file = tmp_path / "vsel.yaml"
    file.write_text(
        f"name: p\nstore: {tmp_path}/store\ndatasets: {{a: {{source: a.json}}}}\ncompute: {{backend: {backend}}}\n"
    )
    project = ProjectResource(path=str(file))

    @dg.asset(retry_policy=RETRY)
    def embedded(context: dg.AssetExecutionContext, compute: ComputeBackend) -> None:
        compute.run(context, "image_embeddings", "none")

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [embedded],
            instance=instance,
            resources={"project": project, "compute": ComputeBackend(project=project)},
            raise_on_error=False,
        )
        return result, [event.event_type_value for event in result.all_events]


@pytest.mark.parametrize("backend", ["in_process", "subprocess"])
def test_an_error_that_stays_is_one_failure_with_its_text(tmp_path, backend, capfd):
    result, events = materialize(tmp_path, backend)
    assert events.count("STEP_FAILURE") == 1
    assert "STEP_UP_FOR_RETRY" not in events
    failure = next(event for event in result.all_events if event.is_step_failure).step_failure_data
    assert TEXT in failure.user_failure_data.description
    assert failure.user_failure_data.metadata[EXIT_CODE].value == NotMaterializedError.exit_code
    if backend == "subprocess":
        assert "resources/pipes_worker.py" not in capfd.readouterr().err, "the child prints no traceback"


def test_passing_errors_of_this_process_are_tried_again(tmp_path, monkeypatch):
    def fail(job, progress):
        raise OutOfMemoryError("one row is too long")

    monkeypatch.setattr(compute, "run_job", fail)
    _, events = materialize(tmp_path, "in_process")
    assert events.count("STEP_UP_FOR_RETRY") == RETRY.max_retries


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OutOfMemoryError("x"), True),
        (StorageError("x"), True),
        (RuntimeError("x"), True),
        (NotMaterializedError("x"), False),
        (TypeError("x"), False),
        (KeyError("x"), False),
        (DataError("x"), False),
    ],
)
def test_what_may_pass(error, expected):
    assert is_passing(error) is expected


@pytest.fixture
def job(tmp_path):
    from vsel_platform.config import parse_project

    project = parse_project("name: p\ndatasets: {a: {source: a.json}}\n", base_dir=str(tmp_path))
    return Job(stage="losses", key="s", project=project)


def test_the_worker_reports_an_unforeseen_error_and_prints_its_traceback(job, monkeypatch, capsys):
    def fail(job, progress):
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(pipes_worker, "run_job", fail)
    expected = {"error": "RuntimeError: no kernel image", "is_passing": True, "exit_code": 1}
    assert pipes_worker.outcome(job, no_progress) == expected
    assert "Traceback" in capsys.readouterr().err


def test_the_worker_reports_what_a_stage_did(job, monkeypatch):
    done = StageResult("losses", {"shard": "s"}, "v", 3)
    monkeypatch.setattr(pipes_worker, "run_job", lambda job, progress: done)
    assert StageResult(**pipes_worker.outcome(job, no_progress)) == done
