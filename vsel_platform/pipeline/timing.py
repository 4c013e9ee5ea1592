"""How fast stages were in this store, so that the cost of the next run can be told before it is spent."""

from datetime import UTC, datetime

import orjson

from vsel_platform.pipeline.context import Context

# The time of a run much smaller than the one remembered is mostly that of loading the model: no rate to go by.
SMALL_SHARE = 0.1


def record_rate(ctx: Context, stage: str, model: str, units: int, seconds: float) -> None:
    """Remember the last run of a stage under a model: how many units of work it did, and for how long.

    A unit is what `estimate` counts for the stage: a row, an image, or a row times its model passes. Timings are
    no lineage: they lie beside the tables, and publishing the same content again stays without effect.
    """
    if units <= 0:
        return
    found = ctx.store.files.read_versioned(_path(stage, model))
    if found is not None and units < SMALL_SHARE * int(orjson.loads(found[0])["units"]):
        return
    values = {"units": units, "seconds": seconds, "at": datetime.now(UTC).isoformat()}
    ctx.store.files.write(_path(stage, model), orjson.dumps(values))


def known_seconds(ctx: Context, stage: str, model: str, units: int) -> float | None:
    """Seconds that `units` of work take at the rate of the stage's last run; None if it never ran here."""
    if not units:
        return 0.0
    found = ctx.store.files.read_versioned(_path(stage, model))
    if found is None:
        return None
    last = orjson.loads(found[0])
    return units * float(last["seconds"]) / int(last["units"])


def _path(stage: str, model: str) -> str:
    return f"timings/{stage}/{model or 'none'}.json"
