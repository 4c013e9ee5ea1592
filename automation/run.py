"""Drives recipes stage by stage against the Dagster instance: `python -m automation.run RECIPE ...`."""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import dagster as dg

from automation.instance import DRIVER_TAG, TARGET_TAG, WANT_TAG, driver_name, fail_runs_of_dead_drivers
from resources.failures import EXIT_CODE
from vsel_platform.errors import NotMaterializedError, RunError, VselError
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.outcome import outcome
from vsel_platform.pipeline.plan import Step, next_steps
from vsel_platform.worker import SIGNALS, end_with_parent

MULTI = {"dataset_manifest": ["raw_annotations", "dataset_manifest", "quarantine"]}
MAX_STAGES = 100
# By this tag the UI finds the runs of a job. Dagster sets it on the runs that a code server launches.
REPOSITORY_TAG = ".dagster/repository"
REPOSITORY = "__repository__@vsel_platform"


def drive(
    instance: dg.DagsterInstance, recipes: list[str], *, train: bool, log: Callable[[str], object] = print
) -> int:
    """Materialize stale partitions until nothing is stale; returns how many were materialized.

    Raises VselError if a run fails or a stage does not become current.
    """
    from assets.annotations import register_shards
    from definitions import defs
    from resources.project import project_file
    from vsel_platform.config import load_project

    for run_id in fail_runs_of_dead_drivers(instance):
        log(f"run {run_id} was left behind by a process that was killed; it is marked as failed")
    project = load_project(project_file())
    names = recipes or list(project.recipes)
    previous: list[Step] = []
    count = 0
    for _ in range(MAX_STAGES):
        steps = next_steps(Context(project), names, train=train)
        if not steps:
            return count
        if steps == previous:
            raise VselError(f"{steps[0].target} was materialized but is still stale; see its run in the Dagster UI")
        if steps[0].asset in SIGNALS:
            for name in sorted({project.recipe(recipe).dataset for recipe in names}):
                register_shards(instance, Context(project), name)
        for step in steps:
            materialize(defs, instance, step, log)
        previous = steps
        count += len(steps)
    raise VselError(f"not current after {MAX_STAGES} stages")


def materialize(defs: dg.Definitions, instance: dg.DagsterInstance, step: Step, log: Callable[[str], object]) -> None:
    """Materialize one partition in a run of its stage's job. Raises RunError with the run's first error."""
    from automation.jobs import stage_job

    start = time.monotonic()
    keys = MULTI.get(step.asset, [step.asset])
    result = defs.resolve_job_def(stage_job(step.asset)).execute_in_process(
        instance=instance,
        partition_key=step.key,
        asset_selection=[dg.AssetKey(key) for key in keys],
        tags={
            TARGET_TAG: step.target,
            WANT_TAG: step.want,
            DRIVER_TAG: driver_name(),
            REPOSITORY_TAG: REPOSITORY,
        },
        # The events are in the UI; the console gets one line per partition.
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=False,
    )
    if not result.success:
        text = f"{step.target} failed in run {result.run_id}: {_why(result)}"
        raise RunError(text, _exit_code(result))
    metadata = _metadata(result, step.asset)
    told = outcome(step.asset, metadata)
    log(f"{step.asset} [{step.key}] {time.monotonic() - start:.1f} s{': ' if told else ''}{told}")
    if "warning" in metadata:
        log(f"warning: {metadata['warning']}")


def _metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    """What an asset of a run says about itself, as plain values."""
    events = [event.materialization for event in result.get_asset_materialization_events()]
    own = [found.metadata for found in events if found.asset_key.to_user_string() == asset]
    return {name: value.value for metadata in own for name, value in metadata.items()}


def _why(result: dg.ExecuteInProcessResult) -> str:
    """Failed checks with what they found, else the first error of the run."""
    checks = [found for found in result.get_asset_check_evaluations() if not found.passed]
    if checks:
        return "; ".join(f"check {c.check_name}: {c.metadata['detail'].value}" for c in checks)
    failures = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    if not failures:
        return "see the run in the Dagster UI"
    given = failures[0].user_failure_data
    return given.description if given is not None and given.description else _root_message(failures[0].error)


def _exit_code(result: dg.ExecuteInProcessResult) -> int:
    """Exit code of the error of the engine that ended a run; that of any error if it was none of the engine's."""
    if any(not found.passed for found in result.get_asset_check_evaluations()):
        return NotMaterializedError.exit_code  # what whoever reads that state gets
    failures = [event.step_failure_data.user_failure_data for event in result.all_events if event.is_step_failure]
    codes = [given.metadata[EXIT_CODE].value for given in failures if given and EXIT_CODE in given.metadata]
    return next((code for code in codes if isinstance(code, int)), VselError.exit_code)


def _root_message(error: Any) -> str:
    """Message of what an error was raised from in the end; the class in front of a VselError's says nothing."""
    while error is not None and error.cause is not None:
        error = error.cause
    if error is None:
        return "see the run in the Dagster UI"
    return str(error.message).strip().removeprefix(f"vsel_platform.errors.{error.cls_name}: ")


def main(arguments: list[str]) -> int:
    """Command line of this module."""
    parser = argparse.ArgumentParser(prog="python -m automation.run")
    parser.add_argument("recipes", nargs="*", help="recipes of the project file; none: all")
    parser.add_argument("--train", action="store_true", help="fine-tune and evaluate too")
    parser.add_argument("--with-parent", action="store_true", help="end when the process that started this one ends")
    options = parser.parse_args(arguments)
    if options.with_parent:
        end_with_parent()
    try:
        with dg.DagsterInstance.get() as instance:
            count = drive(instance, options.recipes, train=options.train)
    except VselError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    print(f"up to date; {count} partitions were materialized")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
