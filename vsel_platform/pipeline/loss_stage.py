"""Losses of some rows of a shard under one model: what is stored is reused, the rest is computed and published."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from vsel_platform.models.vlm import Condition
from vsel_platform.pipeline.context import Context, Inputs, StageResult
from vsel_platform.pipeline.models import LOSS_CODE, confirm_weights
from vsel_platform.pipeline.parts import PartLog
from vsel_platform.pipeline.quality import publish_checked
from vsel_platform.pipeline.training_rows import ModelRow, image_provider
from vsel_platform.signals.failures import failures_table
from vsel_platform.tables import TABLES

if TYPE_CHECKING:
    from vsel_platform.models.vlm import VisionLanguageModel
    from vsel_platform.signals.losses import LossValue


@dataclass(frozen=True)
class LossTask:
    """One partition of `losses`: its key, what it reads, the rows that it has to hold and under which conditions.

    `model` opens the model, `rows` reads rows by id in the order of the ids.
    """

    key: dict[str, str]
    inputs: Inputs
    ids: list[str]
    conditions: Sequence[Condition]
    model: "Callable[[], AbstractContextManager[VisionLanguageModel]]"
    rows: Callable[[list[str]], list[ModelRow]]


def run_losses(ctx: Context, task: LossTask, stage: str) -> StageResult:
    """Compute and publish what is missing of a partition."""
    stored = ctx.store.pointer("losses", task.key)
    names = TABLES["losses"].column_names
    parts: list[pa.Table] = []
    if stored is not None:
        parts.append(ctx.store.read(stored))
    log = PartLog(ctx.store.files, f"losses-{task.key['fingerprint']}-{task.key['shard']}")
    finished = log.load()
    if finished is not None:
        parts.append(finished.select(names))
    known = _scored(parts) & set(task.ids)
    computed, failures = _compute(ctx, task, [i for i in task.ids if i not in known], log)
    table = _merge([*computed, *parts], task.ids)
    failed = failures_table(failures)
    ctx.store.publish("signal_failures", {"signal": "losses", **task.key}, failed, run_id=ctx.run_id)
    pointer = publish_checked(
        ctx,
        "losses",
        task.key,
        table,
        fingerprint=task.key["fingerprint"],
        input_fingerprint=task.inputs.fingerprint,
        inputs=task.inputs.references,
        code_version=LOSS_CODE,
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


def _scored(parts: list[pa.Table]) -> set[str]:
    """Rows that have all their losses. A row that failed is tried again, so that its reason is known each time."""
    tried = {i for part in parts for i in part["sample_id"].to_pylist()}
    failed = {i for part in parts for i in part.filter(pc.is_null(part["loss_sum"]))["sample_id"].to_pylist()}
    return tried - failed


def _merge(parts: list[pa.Table], ids: list[str]) -> pa.Table:
    """One row per (sample, condition) of the wanted ids, sorted; the first value of a key counts."""
    schema = TABLES["losses"].arrow_schema()
    rows: dict[tuple[str, str], dict[str, object]] = {}
    wanted = set(ids)
    for part in parts:
        for row in part.to_pylist():
            if row["sample_id"] in wanted:
                rows.setdefault((row["sample_id"], row["condition"]), row)
    return pa.Table.from_pylist([rows[key] for key in sorted(rows)], schema=schema)


def _compute(
    ctx: Context, task: LossTask, ids: list[str], log: PartLog
) -> tuple[list[pa.Table], list[tuple[str, str, str]]]:
    """Losses of the given rows, and (sample_id, reason, detail) of failures; each batch goes to `log` as well."""
    if not ids:
        return [], []
    from vsel_platform.signals.losses import answer_losses

    computed: list[pa.Table] = []
    failures: list[tuple[str, str, str]] = []
    with task.model() as vlm:
        confirm_weights(ctx, task.key["fingerprint"], vlm.fingerprint)
        rows = task.rows(ids)
        done = 0
        for batch in answer_losses(
            vlm, rows, image_provider(ctx), conditions=task.conditions, batch_tokens=ctx.project.vlm.batch_tokens
        ):
            computed.append(_table(batch.values))
            log.save(computed[-1])
            failures += [(f.content_id, f.reason, f.detail) for f in batch.failures]
            done += len({v.sample_id for v in batch.values})
            ctx.progress("rows scored", done, len(rows))
    return computed, failures


def _table(values: "list[LossValue]") -> pa.Table:
    records = [
        {
            "sample_id": v.sample_id,
            "condition": v.condition,
            "loss_sum": _finite(v.loss_sum),
            "loss_mean": _finite(v.loss_mean),
            "n_tokens": v.n_tokens,
            "entropy_mean": _finite(v.entropy_mean),
            "el2n_mean": _finite(v.el2n_mean),
        }
        for v in values
    ]
    return pa.Table.from_pylist(records, schema=TABLES["losses"].arrow_schema())


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
