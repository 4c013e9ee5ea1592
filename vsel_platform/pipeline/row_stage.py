"""A stage that gives the rows of a shard values in a table: what is stored is reused, the rest computed, resumable."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from vsel_platform.errors import StorageError
from vsel_platform.models.images import ContentFailure
from vsel_platform.pipeline.context import Context, Inputs, StageResult
from vsel_platform.pipeline.parts import PartLog
from vsel_platform.pipeline.quality import publish_checked
from vsel_platform.signals.failures import failures_table
from vsel_platform.signals.windows import WINDOW_ROWS
from vsel_platform.tables import TABLES

Failure = tuple[str, str, str]


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
    known = ctx.share.agreed(task.known(parts) & set(task.ids))
    todo = [i for i in task.ids if i not in known]
    computed, failures = _compute(ctx, task, todo, log)
    if not ctx.share.is_main:
        return StageResult(stage, {"shard": task.key["shard"]}, "", 0)
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


def _compute(ctx: Context, task: RowTask, ids: list[str], log: PartLog) -> tuple[list[pa.Table], list[Failure]]:
    """Values of the given rows, and (sample_id, reason, detail) of failures; each batch goes to `log` as well."""
    computed: list[pa.Table] = []
    own = ctx.share.part(ids, WINDOW_ROWS)

    def work() -> list[Failure]:
        failures: list[Failure] = []
        done = 0
        for batch in task.compute(own) if own else ():
            computed.append(batch.table)
            log.save(batch.table)
            failures.extend((f.content_id, f.reason, f.detail) for f in batch.failures)
            done += batch.n_rows
            ctx.progress(task.unit, done, len(own))
        return failures

    failures = ctx.share.together(work)
    if ctx.share.world > 1 and ctx.share.is_main:
        others = log.load()
        computed += [others.select(TABLES[task.table].column_names)] if others is not None else []
        _require_all(task, ids, computed, failures)
    return computed, failures


def _require_all(task: RowTask, ids: list[str], computed: list[pa.Table], failures: list[Failure]) -> None:
    """Another writer of the partition may have published and cleared the parts of other processes."""
    there = {i for part in computed for i in part["sample_id"].to_pylist()} | {i for i, _, _ in failures}
    gone = len(set(ids) - there)
    if gone:
        raise StorageError(f"{task.table}: another writer cleared the values of {gone} rows; run the stage again")


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
