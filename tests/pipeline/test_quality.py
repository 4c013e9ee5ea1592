import pyarrow as pa
import pyarrow.compute as pc
import pytest
from small_project import small_rows

from vsel_platform.errors import NotMaterializedError, StorageError
from vsel_platform.pipeline import ingest, quality
from vsel_platform.pipeline.plan import next_steps
from vsel_platform.pipeline.quality import check, check_names, check_published, publish_checked
from vsel_platform.storage.pointers import history
from vsel_platform.tables import TABLES

DATASET, RECIPE = {"dataset": "shapes"}, {"recipe": "presel"}
STRICT = {"datasets.shapes.max_quarantine_rate": 0.04}


def loose(spec, values):
    """A table that may hold NULL anywhere, and does in the columns that are not given."""
    fields = [field.with_nullable(True) for field in spec.arrow_schema()]
    rows = len(next(iter(values.values())))
    return pa.table({f.name: pa.array(values.get(f.name, [None] * rows), f.type) for f in fields}, pa.schema(fields))


def replaced(table, name, values):
    """A table with one column exchanged."""
    index = table.column_names.index(name)
    return table.set_column(index, name, pa.array(values, table.schema.field(name).type))


def first_as_second(table, name):
    values = table[name].to_pylist()
    return replaced(table, name, [values[0], *values[:1], *values[2:]])


def failed(outcomes):
    return {outcome.name: outcome.detail for outcome in outcomes if not outcome.passed}


LEAK = {
    "benchmark": "held_out",
    "question_id": "row-200#1",
    "kind": "image",
    "found_in": "a",
    "sample_id": "b",
    "value": 1.0,
}
# What breaks each check of a table beyond those that every schema gives: (table, partition, check) -> damage.
DAMAGE = {
    ("selected_subset", "ids_are_unique"): lambda t: first_as_second(t, "sample_id"),
    ("selected_subset", "ranks_are_complete"): lambda t: replaced(t, "rank", range(2, t.num_rows + 2)),
    ("selected_subset", "references_exist"): lambda t: replaced(
        t, "sample_id", ["f" * 64, *t["sample_id"].to_pylist()[1:]]
    ),
    ("selected_subset", "quotas_are_exact"): lambda t: t.slice(0, t.num_rows - 1),
    ("losses", "finite_numbers"): lambda t: replaced(t, "loss_sum", [float("inf")] * t.num_rows),
    ("presel_scores", "finite_numbers"): lambda t: replaced(t, "typicality", [float("nan")] * t.num_rows),
    ("attention_maps", "finite_numbers"): lambda t: replaced(t, "entropy", [float("inf")] * t.num_rows),
    ("method_scores", "finite_numbers"): lambda t: replaced(t, "value", [float("-inf")] * t.num_rows),
    ("answers", "finite_numbers"): lambda t: replaced(t, "score", [float("nan")] * t.num_rows),
    ("evaluation", "finite_numbers"): lambda t: replaced(t, "value", [float("-inf")] * t.num_rows),
    ("leaderboard", "finite_numbers"): lambda t: replaced(t, "value", [float("inf")] * t.num_rows),
    ("leakage", "no_leakage"): lambda t: pa.Table.from_pylist([LEAK], schema=t.schema),
    ("manifest", "quarantine_rate"): lambda t: t.slice(0, 10),
}


# Rows of tables that a drive of PreSel and random does not publish.
MAP = {"n_steps": 2, "n_tokens": 4, "top_tokens": [1, 2], "entropy": 0.5, "sharpness": 0.1, "mass": 0.4}
UNPUBLISHED = {
    "attention_maps": [{"sample_id": "a", **MAP}, {"sample_id": "b", **MAP}],
    "clusters": [{"sample_id": "a", "cluster": 0, "cosine": 0.9}, {"sample_id": "b"}],
    "method_scores": [{"sample_id": "a", "task": "t", "value": 0.5}, {"sample_id": "b", "task": "t"}],
    "promotion": [{"champion": "random", "benchmark": "held_out", "ruling": "keep"}],
}


def sound(ctx, table):
    """A table as it is published, and its partition."""
    if table in UNPUBLISHED:
        return {}, pa.Table.from_pylist(UNPUBLISHED[table], schema=TABLES[table].arrow_schema())
    known = (p for p in ctx.store.pointers(table) if p.partition.get("recipe") != "random")
    pointer = next(p for p in known if p.rows or table == "leakage")
    return pointer.partition, ctx.store.read(pointer)


@pytest.mark.parametrize(("table", "name"), DAMAGE)
def test_a_special_check_passes_on_what_was_published_and_fails_on_damage(ctx, table, name):
    partition, good = sound(ctx, table)
    assert failed(check(ctx, table, partition, good)) == {}
    assert name in failed(check(ctx, table, partition, DAMAGE[table, name](good)))


def test_every_check_has_a_damage_that_breaks_it():
    special = {(table, name) for table in TABLES for name in check_names(table)[2:]}
    assert special == set(DAMAGE)


@pytest.mark.parametrize("table", TABLES)
def test_missing_values_and_repeated_keys_are_found_in_every_table(table):
    spec = TABLES[table]
    empty = loose(spec, {c.name: [None, None] for c in spec.columns})
    missing = quality.no_missing_values(spec, empty)
    assert not missing.passed
    assert all(f"'{c.name}': 2" in missing.detail for c in spec.columns if not c.nullable)
    assert not any(f"'{c.name}'" in missing.detail for c in spec.columns if c.nullable)
    assert not quality.key_is_unique(spec, empty).passed
    assert quality.key_is_unique(spec, empty.slice(1)).passed


def test_rows_that_differ_in_one_key_column_are_not_repeated(ctx):
    values = {"sample_id": ["a", "a"], "condition": ["full", "no_question"], "n_tokens": [1, 1]}
    table = loose(TABLES["losses"], {"loss_sum": [1.0, 1.0], "loss_mean": [1.0, 1.0]} | values)
    assert failed(check(ctx, "losses", {}, table)) == {}
    assert "1 repeat (sample_id, condition)" in failed(check(ctx, "losses", {}, table.take([0, 0])))["key_is_unique"]


def test_missing_numbers_are_no_failure(ctx):
    values = {"sample_id": ["a"], "condition": ["full"], "loss_sum": [None], "loss_mean": [None], "n_tokens": [0]}
    assert failed(check(ctx, "losses", {}, loose(TABLES["losses"], values))) == {}


def test_details_count_what_is_wrong(ctx):
    table = ctx.store.read_partition("selected_subset", RECIPE)
    found = failed(check(ctx, "selected_subset", RECIPE, pa.concat_tables([table, table.slice(0, 2)])))
    assert found["key_is_unique"] == "32 rows, 2 repeat (rank)"
    assert found["ids_are_unique"] == "2 rows are selected more than once"
    task = table["task"].to_pylist()[-1]
    quotas = failed(check(ctx, "selected_subset", RECIPE, table.slice(0, 29)))["quotas_are_exact"]
    rows = table.filter(pc.not_equal(table["reason"], "reference"))["task"].to_pylist().count(task)
    assert f"{{'{task}': ({rows - 1}, {rows})}}" in quotas


def test_the_share_of_a_benchmark_that_leaks_is_counted_in_questions(finished):
    """Two leaks of one question are one of the six; a share that is allowed passes."""
    leaks = [LEAK, LEAK | {"kind": "ngram", "found_in": "b"}]
    table = pa.Table.from_pylist(leaks, schema=TABLES["leakage"].arrow_schema())
    found = failed(check(finished.context(), "leakage", RECIPE, table))["no_leakage"]
    assert found.startswith(
        "in the selected rows: held_out 1 questions (16.67%); 0.00% allowed; look at the table leakage"
    )
    loose_project = finished.context({"evaluation.leakage.max_share": 1 / 6})
    assert failed(check(loose_project, "leakage", RECIPE, table)) == {}


def test_a_task_without_a_budget_may_not_be_selected_from(ctx):
    table = ctx.store.read_partition("selected_subset", RECIPE)
    last = [*table["task"].to_pylist()[:-1], "unplanned"]
    assert (
        "'unplanned': (1, 0)"
        in failed(check(ctx, "selected_subset", RECIPE, replaced(table, "task", last)))["quotas_are_exact"]
    )


def test_all_that_a_drive_publishes_passes(ctx):
    found = [pointer for table in TABLES for pointer in ctx.store.pointers(table)]
    assert {pointer.table for pointer in found} == set(TABLES) - set(UNPUBLISHED)
    assert [failed(check_published(ctx, pointer)) for pointer in found] == [{}] * len(found)


def test_rows_are_judged_before_anyone_can_read_them(fresh, monkeypatch):
    context, visible = fresh.context(), []

    def spy(ctx, partition, table):
        visible.append(ctx.store.pointer("manifest", partition))
        return quality.Outcome("spy", False, "seen")

    monkeypatch.setitem(quality.SPECIAL_CHECKS["manifest"], "spy", spy)
    ingest.run(context, "shapes")
    assert visible == [None]
    states = list(history(context.store.files, "manifest/dataset=shapes"))
    assert [state.quality for state in states] == ["failed: spy (seen)"]


def test_a_failed_check_is_written_down_with_numbers_and_the_most_frequent_reason(fresh):
    fresh.write([*small_rows(), 18, 19])
    context = fresh.context(STRICT)
    result = ingest.run(context, "shapes")
    pointer = context.store.pointer("manifest", DATASET)
    assert pointer.quality == (
        "failed: quarantine_rate (5 of 101 rows (4.95%) are quarantined, 4.00% are allowed; "
        "most frequent reason: not_an_object (3 rows))"
    )
    assert result.manifest.rows == pointer.rows == 96
    assert context.store.require("quarantine", DATASET).rows == 5
    with pytest.raises(NotMaterializedError, match="not_an_object"):
        context.store.require("manifest", DATASET)
    with pytest.raises(NotMaterializedError, match="not_an_object"):
        fresh.drive(["random"], STRICT)


def test_a_failed_manifest_is_not_made_again_until_the_source_or_the_limit_changes(fresh):
    fresh.write([*small_rows(), 18, 19])
    with pytest.raises(NotMaterializedError):
        fresh.drive(["random"], STRICT)
    assert ingest.is_current(fresh.context(STRICT), "shapes")
    assert [step.asset for step in next_steps(fresh.context(), ["random"])] == ["dataset_manifest"]
    fresh.drive(["random"])
    assert fresh.context().store.require("manifest", DATASET).quality == "ok"
    assert next_steps(fresh.context(), ["random"]) == []


def test_a_lowered_limit_fails_a_manifest_that_had_passed(copied):
    strict = {"datasets.shapes.max_quarantine_rate": 0.01}
    assert not ingest.is_current(copied.context(strict), "shapes")
    with pytest.raises(NotMaterializedError, match=r"1\.00% are allowed"):
        copied.drive(["random"], strict)


def test_a_failed_manifest_heals_when_the_source_is_mended(fresh):
    fresh.write([*small_rows(), 18, 19])
    with pytest.raises(NotMaterializedError):
        fresh.drive(["random"], STRICT)
    fresh.write(small_rows()[:-2])
    fresh.drive(["random"], STRICT)
    assert next_steps(fresh.context(STRICT), ["random"]) == []


def test_parts_are_published_as_one_table_and_repeated_publishing_changes_nothing(ctx, fresh):
    context = fresh.context()
    table = ctx.store.read_partition("losses", next(ctx.store.pointers("losses")).partition)
    partition = {"fingerprint": "f", "shard": "s"}
    parts = [table.slice(0, 3), table.slice(3)]
    first = publish_checked(context, "losses", partition, parts, run_id="one")
    assert context.store.read(first) == table
    assert publish_checked(context, "losses", partition, table, run_id="two").version == first.version


def test_what_a_schema_forbids_is_not_published_at_all(fresh):
    context = fresh.context()
    values = {"sample_id": ["a"], "condition": ["full"], "loss_sum": [float("nan")], "loss_mean": [0.0]}
    with pytest.raises(StorageError, match="loss_sum"):
        publish_checked(
            context, "losses", {"fingerprint": "f", "shard": "s"}, loose(TABLES["losses"], values | {"n_tokens": [1]})
        )
    assert list(context.store.pointers()) == []
