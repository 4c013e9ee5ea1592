"""Stage `losses`: answer loss with and without the question, for the reference rows of a shard."""

import math
import time
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from vsel_platform.pipeline.context import Context, Inputs, StageResult, inputs_of
from vsel_platform.pipeline.lookup import dataset_shards
from vsel_platform.pipeline.models import LOSS_CODE, confirm_weights, loss_fingerprint, vlm_fingerprint
from vsel_platform.pipeline.parts import PartLog
from vsel_platform.pipeline.quality import publish_checked
from vsel_platform.pipeline.timing import record_rate
from vsel_platform.pipeline.training_rows import image_provider, training_rows
from vsel_platform.signals.failures import failures_table
from vsel_platform.tables import TABLES

if TYPE_CHECKING:
    from vsel_platform.signals.losses import LossValue


def datasets_of(ctx: Context, shard: str) -> list[str]:
    """Datasets with a reference model that have reference rows in the shard."""
    found = []
    for dataset in ctx.project.datasets:
        ready = all(ctx.store.pointer(t, {"dataset": dataset}) for t in ("manifest", "reference_model"))
        if ready and shard in dataset_shards(ctx, dataset):
            found.append(dataset)
    return found


def partition(ctx: Context, dataset: str, shard: str) -> dict[str, str]:
    """Partition of a shard's losses under the dataset's reference model."""
    model = ctx.store.require("reference_model", {"dataset": dataset})
    return {"fingerprint": loss_fingerprint(ctx.project.vlm, model.data_version), "shard": shard}


def wanted_ids(ctx: Context, dataset: str, shard: str) -> list[str]:
    """Reference rows of the dataset that lie in the shard, sorted."""
    reference = ctx.store.read_partition("reference_subset", {"dataset": dataset}, ["sample_id"])["sample_id"]
    here = ctx.store.read_partition("samples", {"shard": shard}, ["sample_id"])["sample_id"]
    return sorted(here.filter(pc.is_in(here, reference.combine_chunks())).to_pylist())


def inputs(ctx: Context, dataset: str, shard: str) -> Inputs:
    """What the stage reads: the shard, the model, and which of the rows are reference rows."""
    pointers = [
        ctx.store.require("samples", {"shard": shard}),
        ctx.store.require("reference_model", {"dataset": dataset}),
    ]
    return inputs_of(pointers, rows=wanted_ids(ctx, dataset, shard), code=LOSS_CODE)


def is_current(ctx: Context, shard: str) -> bool:
    """Whether the stored losses cover the present reference rows under the present model."""
    for dataset in datasets_of(ctx, shard):
        pointer = ctx.store.pointer("losses", partition(ctx, dataset, shard))
        if pointer is None or pointer.input_fingerprint != inputs(ctx, dataset, shard).fingerprint:
            return False
    return True


def run(ctx: Context, shard: str) -> StageResult:
    """Compute and publish what is missing, for every dataset that has reference rows in the shard."""
    start = time.perf_counter()
    results = [_run_dataset(ctx, dataset, shard) for dataset in datasets_of(ctx, shard)]
    versions = sorted(result.data_version for result in results)
    n_computed = sum(result.computed for result in results)
    record_rate(ctx, "losses", vlm_fingerprint(ctx.project.vlm), n_computed, time.perf_counter() - start)
    return StageResult(
        "losses",
        {"shard": shard},
        "-".join(versions) or "none",
        sum(r.rows for r in results),
        computed=sum(r.computed for r in results),
        reused=sum(r.reused for r in results),
        failed=sum(r.failed for r in results),
        seconds=time.perf_counter() - start,
        references=[reference for r in results for reference in r.references],
    )


def _run_dataset(ctx: Context, dataset: str, shard: str) -> StageResult:
    key = partition(ctx, dataset, shard)
    wanted = inputs(ctx, dataset, shard)
    ids = wanted_ids(ctx, dataset, shard)
    stored = ctx.store.pointer("losses", key)
    names = TABLES["losses"].column_names
    parts: list[pa.Table] = []
    if stored is not None:
        parts.append(ctx.store.read(stored))
    log = PartLog(ctx.store.files, f"losses-{key['fingerprint']}-{shard}")
    finished = log.load()
    if finished is not None:
        parts.append(finished.select(names))
    known = _scored(parts) & set(ids)
    computed, failures = _compute(ctx, dataset, [i for i in ids if i not in known], log)
    table = _merge([*computed, *parts], ids)
    failed = failures_table(failures)
    ctx.store.publish("signal_failures", {"signal": "losses", **key}, failed, run_id=ctx.run_id)
    pointer = publish_checked(
        ctx,
        "losses",
        key,
        table,
        fingerprint=key["fingerprint"],
        input_fingerprint=wanted.fingerprint,
        inputs=wanted.references,
        code_version=LOSS_CODE,
        run_id=ctx.run_id,
    )
    log.clear()
    return StageResult(
        "losses",
        {"shard": shard, "dataset": dataset},
        pointer.data_version,
        pointer.rows,
        computed=len(ids) - len(known),
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
    ctx: Context, dataset: str, ids: list[str], log: PartLog
) -> tuple[list[pa.Table], list[tuple[str, str, str]]]:
    """Losses of the given rows, and (sample_id, reason, detail) of failures; each batch goes to `log` as well."""
    if not ids:
        return [], []
    from vsel_platform.models.llava import load_vlm
    from vsel_platform.pipeline.artifacts import fetched
    from vsel_platform.signals.losses import answer_losses

    computed: list[pa.Table] = []
    failures: list[tuple[str, str, str]] = []
    model = ctx.store.require("reference_model", {"dataset": dataset})
    with fetched(ctx, model) as adapter:
        vlm = load_vlm(ctx.project.vlm, ctx.project.compute.device, adapter_dir=str(adapter))
        confirm_weights(ctx, loss_fingerprint(ctx.project.vlm, model.data_version), vlm.fingerprint)
        rows = training_rows(ctx, dataset, ids)
        done = 0
        for batch in answer_losses(vlm, rows, image_provider(ctx), batch_tokens=ctx.project.vlm.batch_tokens):
            values = batch.values
            computed.append(_table(values))
            log.save(computed[-1])
            failures += [(f.content_id, f.reason, f.detail) for f in batch.failures]
            done += len({v.sample_id for v in values})
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
        }
        for v in values
    ]
    return pa.Table.from_pylist(records, schema=TABLES["losses"].arrow_schema())


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
