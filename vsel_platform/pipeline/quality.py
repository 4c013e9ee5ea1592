"""Checks of published tables: generated from their schemas, and a few that a schema cannot say.

Rows are checked before they are published. A failed check is written into the pointer's `quality`, which every
consumer refuses, in whatever run it reads.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vsel_platform.pipeline.benchmarks import read_benchmark
from vsel_platform.pipeline.context import Context
from vsel_platform.storage.parquet import conform
from vsel_platform.storage.pointers import Pointer
from vsel_platform.tables import TABLES, TableSpec

PASSED = "ok"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of one check; `detail` says what was found, in numbers."""

    name: str
    passed: bool
    detail: str


def check_names(table: str) -> list[str]:
    """Names of the checks of a table."""
    return ["no_missing_values", "key_is_unique", *(name for name in SPECIAL_CHECKS.get(table, {}))]


def check(ctx: Context, name: str, partition: dict[str, str], table: pa.Table) -> list[Outcome]:
    """Run every check of a table on one partition's rows."""
    spec = TABLES[name]
    outcomes = [no_missing_values(spec, table), key_is_unique(spec, table)]
    return outcomes + [function(ctx, partition, table) for function in SPECIAL_CHECKS.get(name, {}).values()]


def check_published(ctx: Context, pointer: Pointer) -> list[Outcome]:
    """Run every check of a published partition."""
    return check(ctx, pointer.table, pointer.partition, ctx.store.read(pointer))


def publish_checked(
    ctx: Context, name: str, partition: dict[str, str], data: pa.Table | list[pa.Table], **lineage: Any
) -> Pointer:
    """Check rows, then publish them with the verdict: no reader sees them as sound before they were checked."""
    table = conform(TABLES[name], data if isinstance(data, pa.Table) else pa.concat_tables(data))
    failed = [outcome for outcome in check(ctx, name, partition, table) if not outcome.passed]
    quality = "failed: " + "; ".join(f"{o.name} ({o.detail})" for o in failed) if failed else PASSED
    return ctx.store.publish(name, partition, table, quality=quality, **lineage)


def no_missing_values(spec: TableSpec, table: pa.Table) -> Outcome:
    """Columns that may not be NULL have no NULL."""
    counts = {c.name: table.column(c.name).null_count for c in spec.columns if not c.nullable}
    bad = {name: count for name, count in counts.items() if count}
    return Outcome("no_missing_values", not bad, f"{len(counts)} columns, NULL in: {bad or 'none'}")


def key_is_unique(spec: TableSpec, table: pa.Table) -> Outcome:
    """The key columns identify each row."""
    distinct = table.group_by(list(spec.key)).aggregate([]).num_rows
    repeated = table.num_rows - distinct
    return Outcome("key_is_unique", repeated == 0, f"{table.num_rows} rows, {repeated} repeat ({', '.join(spec.key)})")


def quarantine_rate(ctx: Context, partition: dict[str, str], table: pa.Table) -> Outcome:
    """The share of quarantined rows is within the project file's limit."""
    dataset = partition["dataset"]
    limit = ctx.project.dataset(dataset).max_quarantine_rate
    bad = ctx.store.read_partition("quarantine", {"dataset": dataset}, ["reason"])["reason"]
    total = table.num_rows + len(bad)
    rate = len(bad) / total if total else 0.0
    detail = f"{len(bad)} of {total} rows ({rate:.2%}) are quarantined, {limit:.2%} are allowed"
    if len(bad):
        top = max(pc.value_counts(bad.combine_chunks()).to_pylist(), key=lambda v: (v["counts"], v["values"]))
        detail += f"; most frequent reason: {top['values']} ({top['counts']} rows)"
    return Outcome("quarantine_rate", rate <= limit, detail)


def finite_numbers(ctx: Context, partition: dict[str, str], table: pa.Table) -> Outcome:
    """Numbers are finite or NULL, never NaN or infinite."""
    bad = 0
    for name in table.column_names:
        if pa.types.is_floating(table.schema.field(name).type):
            bad += pc.sum(pc.invert(pc.is_finite(pc.drop_null(table[name])))).as_py() or 0
    return Outcome("finite_numbers", bad == 0, f"{bad} non-finite numbers")


def ids_are_unique(ctx: Context, partition: dict[str, str], table: pa.Table) -> Outcome:
    """No content is selected twice."""
    repeated = table.num_rows - len(pc.unique(table["sample_id"]))
    return Outcome("ids_are_unique", repeated == 0, f"{repeated} rows are selected more than once")


def ranks_are_complete(ctx: Context, partition: dict[str, str], table: pa.Table) -> Outcome:
    """Ranks are 1 to n."""
    complete = sorted(table["rank"].to_pylist()) == list(range(1, table.num_rows + 1))
    return Outcome("ranks_are_complete", complete, f"{table.num_rows} rows")


def references_exist(ctx: Context, partition: dict[str, str], table: pa.Table) -> Outcome:
    """Every selected content stands in the dataset's manifest."""
    dataset = ctx.project.recipe(partition["recipe"]).dataset
    known = ctx.store.read_partition("manifest", {"dataset": dataset}, ["sample_id"])["sample_id"]
    ids = table["sample_id"]
    broken = pc.sum(pc.invert(pc.is_in(ids, known.combine_chunks()))).as_py() or 0
    return Outcome("references_exist", broken == 0, f"{broken} selected rows are not in dataset {dataset}")


def quotas_are_exact(ctx: Context, partition: dict[str, str], table: pa.Table) -> Outcome:
    """The number selected in every task is what the budget table says."""
    tasks = ctx.store.read_partition("selected_tasks", partition, ["task", "n_selected"])
    planned = dict(zip(tasks["task"].to_pylist(), tasks["n_selected"].to_pylist(), strict=True))
    found = dict.fromkeys(planned, 0)
    for task, reason in zip(table["task"].to_pylist(), table["reason"].to_pylist(), strict=True):
        if reason != "reference":
            found[task] = found.get(task, 0) + 1
    wrong = {task: (found[task], planned.get(task, 0)) for task in found if found[task] != planned.get(task, 0)}
    return Outcome(
        "quotas_are_exact", not wrong, f"{len(planned)} tasks; (selected, planned) differ: {wrong or 'none'}"
    )


def no_leakage(ctx: Context, partition: dict[str, str], table: pa.Table) -> Outcome:
    """No more questions of a benchmark stand in the selected rows than evaluation.leakage.max_share allows."""
    limit = ctx.project.evaluation.leakage.max_share
    concerned: dict[str, set[str]] = {}
    for row in table.select(["benchmark", "question_id"]).to_pylist():
        concerned.setdefault(row["benchmark"], set()).add(row["question_id"])
    shares = {name: len(found) / len(read_benchmark(ctx, name).questions) for name, found in concerned.items()}
    found = ", ".join(f"{name} {len(concerned[name])} questions ({shares[name]:.2%})" for name in sorted(shares))
    passed = all(share <= limit for share in shares.values())
    advice = "" if passed else "; look at the table leakage, drop the rows or raise evaluation.leakage.max_share"
    return Outcome("no_leakage", passed, f"in the selected rows: {found or 'none'}; {limit:.2%} allowed{advice}")


SPECIAL_CHECKS: dict[str, dict[str, Callable[[Context, dict[str, str], pa.Table], Outcome]]] = {
    "manifest": {"quarantine_rate": quarantine_rate},
    "losses": {"finite_numbers": finite_numbers},
    "attention_maps": {"finite_numbers": finite_numbers},
    "method_scores": {"finite_numbers": finite_numbers},
    "presel_scores": {"finite_numbers": finite_numbers},
    "answers": {"finite_numbers": finite_numbers},
    "evaluation": {"finite_numbers": finite_numbers},
    "leaderboard": {"finite_numbers": finite_numbers},
    "leakage": {"no_leakage": no_leakage},
    "selected_subset": {
        "ids_are_unique": ids_are_unique,
        "ranks_are_complete": ranks_are_complete,
        "references_exist": references_exist,
        "quotas_are_exact": quotas_are_exact,
    },
}
