"""Sensors: changed source files, and the level-triggered reconciliation of selections."""

import os
from collections.abc import Iterator

import dagster as dg
import orjson

from assets.annotations import register_shards
from automation.instance import TARGET_TAG, WANT_TAG
from automation.jobs import BY_HAND, STAGE_JOBS, stage_job
from automation.partitions import datasets, loaded_project, recipes
from automation.requests import Waiting, is_in_flight, refused
from automation.run import MULTI
from resources.project import ProjectResource
from vsel_platform.errors import VselError
from vsel_platform.pipeline import ingest
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.plan import INGEST, Step, ingest_step, next_steps, target
from vsel_platform.worker import SIGNALS


def automation_is_off() -> bool:
    """Automation is what the platform is for; `VSEL_AUTOMATION=off` switches sensors and schedule off."""
    return os.environ.get("VSEL_AUTOMATION", "on") == "off"


def default_status() -> dg.DefaultSensorStatus:
    """Status of a sensor that nobody has switched in the UI."""
    return dg.DefaultSensorStatus.STOPPED if automation_is_off() else dg.DefaultSensorStatus.RUNNING


@dg.sensor(
    job=STAGE_JOBS["ingest"],
    minimum_interval_seconds=loaded_project().automation.source_interval_s,
    default_status=default_status(),
    description="Looks at the source files, cheaply first (size and time), and ingests those whose content changed.",
)
def changed_sources(
    context: dg.SensorEvaluationContext, project: ProjectResource
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Request an ingest of every dataset whose source changed since its manifest was made."""
    seen: dict[str, str] = orjson.loads(context.cursor) if context.cursor else {}
    ctx = project.context()
    requested = 0
    for name in datasets.get_partition_keys():
        cheap = ingest.observe_cheaply(ctx, name)
        if cheap is None or seen.get(name) == cheap:
            continue
        if is_in_flight(context.instance, target(INGEST, name)):
            continue  # not seen yet: that run may have read the source before it changed
        seen[name] = cheap
        if not ingest.is_current(ctx, name):
            requested += 1
            yield dg.RunRequest(run_key=_run_key(ctx, name), partition_key=name, tags=_tags(ingest_step(ctx, name)))
    context.update_cursor(orjson.dumps(seen).decode())
    if not requested:
        yield dg.SkipReason("no source file changed")


def _run_key(ctx: Context, dataset: str) -> str:
    """One request per change: a source that returns to an earlier content changed from another manifest."""
    manifest = ctx.store.pointer("manifest", {"dataset": dataset})
    content = ingest.observe_source(ctx, dataset).content
    return f"{dataset}-{content}-after-{manifest.version if manifest else 'nothing'}"


@dg.sensor(
    jobs=[job for name, job in STAGE_JOBS.items() if name not in BY_HAND],
    minimum_interval_seconds=loaded_project().automation.reconcile_interval_s,
    default_status=default_status(),
    description="Compares what every selection was made from with what is there now, and requests the first stage "
    "that is stale. It misses nothing, whatever the timing; a target that keeps failing is left alone.",
)
def reconcile_selections(
    context: dg.SensorEvaluationContext, project: ProjectResource
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Request what is stale, unless it is running or has failed too often for the same inputs."""
    ctx = project.context()
    reasons: list[str] = []
    steps = {
        step.target: (step, ctx.project.recipe(name).dataset)
        for name in recipes.get_partition_keys()
        if name in ctx.project.recipes
        for step in _steps(ctx, name, reasons)
    }
    waiting = Waiting.load(context.cursor, ctx.project.automation.source_interval_s)
    requested = 0
    for step, dataset in steps.values():
        refusal = waiting.refusal(step) or refused(context.instance, step, ctx.project.automation.max_attempts)
        if refusal:
            reasons.append(refusal)
            continue
        if step.asset in SIGNALS:
            register_shards(context.instance, ctx, dataset)
        requested += 1
        yield dg.RunRequest(
            job_name=stage_job(step.asset),
            partition_key=step.key,
            asset_selection=[dg.AssetKey(key) for key in MULTI.get(step.asset, [step.asset])],
            tags=_tags(step),
        )
    context.update_cursor(waiting.cursor())
    if not requested:
        yield dg.SkipReason("; ".join(dict.fromkeys(reasons)) or "every selection is current")


def _tags(step: Step) -> dict[str, str]:
    return {TARGET_TAG: step.target, WANT_TAG: step.want}


def _steps(ctx: Context, recipe: str, reasons: list[str]) -> list[Step]:
    try:
        return next_steps(ctx, [recipe])
    except VselError as error:
        reasons.append(f"{recipe}: {error}")
        return []


ALL = [changed_sources, reconcile_selections]
