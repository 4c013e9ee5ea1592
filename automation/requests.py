"""When a stale target must not be asked for: another asked already, it keeps failing, or nothing would be different."""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import dagster as dg
import orjson

from automation.instance import TARGET_TAG, WANT_TAG
from resources.failures import EXIT_CODE, RETRY_MAY_HELP
from vsel_platform.errors import StorageError
from vsel_platform.pipeline.plan import INGEST, Step

IN_FLIGHT = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
FAILURE_WINDOW = timedelta(days=7)
# Both sensors may tick in the same second, before either's request is a run. Half an interval more than one keeps the
# second to ask off the moment at which the first does.
HEAD_START = 1.5


@dataclass
class Waiting:
    """Changed sources that are left to the sensor which watches them, until it had `patience_s` to ask for them."""

    patience_s: float
    before: dict[str, tuple[str, float]]
    now: dict[str, tuple[str, float]] = field(default_factory=dict)

    @classmethod
    def load(cls, cursor: str | None, source_interval_s: float) -> "Waiting":
        """What an earlier tick wrote."""
        return cls(source_interval_s * HEAD_START, orjson.loads(cursor) if cursor else {})

    def cursor(self) -> str:
        """What the next tick has to know."""
        return orjson.dumps(self.now).decode()

    def refusal(self, step: Step) -> str | None:
        """Why an ingest has to wait; None if it has waited, and for every other step."""
        if step.asset != INGEST:
            return None
        now = time.time()
        want, since = self.before.get(step.target, (step.want, now))
        if want != step.want:
            since = now
        self.now[step.target] = (step.want, since)
        left = since + self.patience_s - now
        return f"{step.target} is left to changed_sources for {left:.0f} s more" if left > 0 else None


def is_in_flight(instance: dg.DagsterInstance, target: str) -> bool:
    """Whether a run for the target, whoever asked for it, is queued or running."""
    return bool(instance.get_runs_count(dg.RunsFilter(tags={TARGET_TAG: target}, statuses=IN_FLIGHT)))


def refused(instance: dg.DagsterInstance, step: Step, max_attempts: int) -> str | None:
    """Why a step must not be requested now, None if it may."""
    if is_in_flight(instance, step.target):
        return f"{step.target} is running"
    failed = instance.get_runs(
        dg.RunsFilter(
            tags={TARGET_TAG: step.target, WANT_TAG: step.want},
            statuses=[dg.DagsterRunStatus.FAILURE],
            created_after=datetime.now(UTC) - FAILURE_WINDOW,
        ),
        limit=max_attempts,
    )
    if len(failed) >= max_attempts:
        return f"{step.target} failed {len(failed)} times for the same inputs; mend it and materialize it by hand"
    lasting = _lasting_error(instance, failed[0].run_id) if failed else None
    if lasting:
        return f"{step.target} failed and would fail again: {lasting}; mend it and materialize it by hand"
    return None


def _lasting_error(instance: dg.DagsterInstance, run_id: str) -> str | None:
    """What ended a run if another attempt on the same inputs cannot help.

    Whatever the store lacked may be there the next time, so errors of the store are never lasting here.
    """
    for record in instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        event = record.dagster_event
        given = event.step_failure_data.user_failure_data if event is not None else None
        if given is None or RETRY_MAY_HELP not in given.metadata:
            continue
        if not given.metadata[RETRY_MAY_HELP].value and given.metadata[EXIT_CODE].value != StorageError.exit_code:
            return given.description
    return None
