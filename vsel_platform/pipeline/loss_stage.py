"""Losses of some rows of a shard under one model."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from vsel_platform.models.vlm import Condition
from vsel_platform.pipeline.by_products import NOTHING, ByProducts
from vsel_platform.pipeline.context import Context, Inputs, StageResult
from vsel_platform.pipeline.models import LOSS_CODE, confirm_weights
from vsel_platform.pipeline.row_stage import RowBatch, RowTask, run_rows
from vsel_platform.pipeline.training_rows import ModelRow, image_provider
from vsel_platform.tables import TABLES

if TYPE_CHECKING:
    from vsel_platform.models.vlm import VisionLanguageModel
    from vsel_platform.signals.losses import LossValue


@dataclass(frozen=True)
class LossTask:
    """One partition of `losses`: its key, what it reads, the rows that it has to hold and under which conditions.

    `model` opens the model, `rows` reads rows by id in the order of the ids. `besides`: takes vectors on the way.
    """

    key: dict[str, str]
    inputs: Inputs
    ids: list[str]
    conditions: Sequence[Condition]
    model: "Callable[[], AbstractContextManager[VisionLanguageModel]]"
    rows: Callable[[list[str]], list[ModelRow]]
    besides: "Callable[[VisionLanguageModel], ByProducts]" = lambda model: NOTHING


def run_losses(ctx: Context, task: LossTask, stage: str) -> StageResult:
    """Compute and publish what is missing of a partition."""
    rows = RowTask(
        "losses",
        task.key,
        LOSS_CODE,
        task.inputs,
        task.ids,
        "rows scored",
        _scored,
        lambda ids: _compute(ctx, task, ids),
    )
    return run_rows(ctx, rows, stage)


def _scored(parts: list[pa.Table]) -> set[str]:
    """Rows that have all their losses. A row that failed is tried again, so that its reason is known each time."""
    tried = {i for part in parts for i in part["sample_id"].to_pylist()}
    failed = {i for part in parts for i in part.filter(pc.is_null(part["loss_sum"]))["sample_id"].to_pylist()}
    return tried - failed


def _compute(ctx: Context, task: LossTask, ids: list[str]) -> Iterator[RowBatch]:
    from vsel_platform.signals.losses import answer_losses

    with task.model() as vlm:
        confirm_weights(ctx, task.key["fingerprint"], vlm.fingerprint)
        besides = task.besides(vlm)
        for batch in answer_losses(
            vlm,
            task.rows(ids),
            image_provider(ctx),
            conditions=task.conditions,
            batch_tokens=ctx.project.vlm.batch_tokens,
            vectors=besides.wanted(ctx),
        ):
            besides.add(batch.vectors)
            yield RowBatch(_table(batch.values), batch.failures, len({v.sample_id for v in batch.values}))


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
