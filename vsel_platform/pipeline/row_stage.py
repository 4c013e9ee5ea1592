"""A stage that gives the rows of a shard values in a table: what is stored is reused, the rest computed, resumable."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from vsel_platform.models.images import ContentFailure
from vsel_platform.pipeline.context import Context, Inputs, StageResult
from vsel_platform.pipeline.parts import PartLog
from vsel_platform.pipeline.quality import publish_checked
from vsel_platform.signals.failures import failures_table
from vsel_platform.tables import TABLES


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Values of `n_rows` rows in the table's schema, and the rows that have none."""

    table: pa.Table
    failures: Sequence[ContentFailure]
    n_rows: int


@dataclass(frozen=True)
class RowTask:
    """One partition (fingerprint, shard) of a table: what it reads and which rows it has to hold.

    known: of rows in stored parts, those that need not be computed. compute: values of rows by id, batch by batch.
    unit: what progress counts.
    """

    table: str
    key: dict[str, str]
    code: str
    inputs: Inputs
    ids: list[str]
    unit: str
    known: Callable[[list[pa.Table]], set[str]]
    compute: Callable[[list[str]], Iterator[RowBatch]]


def run_rows(ctx: Context, task: RowTask, stage: str) -> StageResult:
    """Compute and publish what is missing of a partition."""
    stored = ctx.store.pointer(task.table, task.key)
    parts = [ctx.store.read(stored)] if stored is not None else []
    log = PartLog(ctx.store.files, f"{task.table}-{task.key['fingerprint']}-{task.key['shard']}")
    finished = log.load()
    if finished is not None:
        parts.append(finished.select(TABLES[task.table].column_names))
    known = task.known(parts) & set(task.ids)
    computed, failures = _compute(ctx, task, [i for i in task.ids if i not in known], log)
    table = _merge(task, [*computed, *parts])
    failed = failures_table(failures)
    ctx.store.publish("signal_failures", {"signal": task.table, **task.key}, failed, run_id=ctx.run_id)
    pointer = publish_checked(
        ctx,
        task.table,
        task.key,
        table,
        fingerprint=task.key["fingerprint"],
        input_fingerprint=task.inputs.fingerprint,
        inputs=task.inputs.references,
        code_version=task.code,
        run_id=ctx.run_id,
    )
    log.clear()
    return StageResult(
        stage,
        {"shard": task.key["shard"]},
        pointer.data_version,
        pointer.rows,
        computed=len(task.ids) - len(known),
        reused=len(known),
        failed=failed.num_rows,
        references=[pointer.reference],
    )


def _compute(
    ctx: Context, task: RowTask, ids: list[str], log: PartLog
) -> tuple[list[pa.Table], list[tuple[str, str, str]]]:
    """Values of the given rows, and (sample_id, reason, detail) of failures; each batch goes to `log` as well."""
    computed: list[pa.Table] = []
    failures: list[tuple[str, str, str]] = []
    done = 0
    for batch in task.compute(ids) if ids else ():
        computed.append(batch.table)
        log.save(batch.table)
        failures += [(f.content_id, f.reason, f.detail) for f in batch.failures]
        done += batch.n_rows
        ctx.progress(task.unit, done, len(ids))
    return computed, failures


def _merge(task: RowTask, parts: list[pa.Table]) -> pa.Table:
    """One row per key of the wanted ids, sorted; the first value of a key counts."""
    spec = TABLES[task.table]
    rows: dict[tuple[object, ...], dict[str, object]] = {}
    wanted = set(task.ids)
    for part in parts:
        for row in part.to_pylist():
            if row["sample_id"] in wanted:
                rows.setdefault(tuple(row[name] for name in spec.key), row)
    return pa.Table.from_pylist([rows[key] for key in sorted(rows, key=str)], schema=spec.arrow_schema())
