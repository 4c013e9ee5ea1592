import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_store import N_IMAGES, NO_ENTROPY, SHARDS, TASKS, contents, publish, rows_of, sha

from vsel_platform.reports.data import (
    column_values,
    dataset_summary,
    parts,
    quarantine_summary,
    relevance,
    relevance_of_shard,
    scores_pointer,
    smallest,
    task_difficulty,
)


def test_a_store_without_tables_has_nothing_to_report(empty):
    assert dataset_summary(empty, "shapes") is None
    assert quarantine_summary(empty, "shapes", 5) is None
    assert scores_pointer(empty, "shapes", "default") is None
    assert task_difficulty(empty, "shapes", "default") == []
    assert relevance_of_shard(empty, "one") == {}


def test_duplicates_are_counted_apart_from_tasks(ctx):
    summary = dataset_summary(ctx, "shapes")
    assert summary.n_distinct == len(contents()) == sum(summary.tasks.values())
    assert summary.n_duplicates == 3
    assert summary.tasks["text"] == 4


def test_quarantine_is_counted_by_reason_and_listed_in_source_order(ctx):
    summary = quarantine_summary(ctx, "shapes", 20)
    assert (summary.n_rows, summary.n_accepted) == (30, len(contents()) + 3)
    assert summary.reasons == {"bad|reason": 10, "image_missing": 20}
    assert [position for position, _, _ in summary.first] == list(range(200, 220))


def test_empty_quarantine_has_no_rows(empty):
    publish(empty, "quarantine", {"dataset": "shapes"}, [])
    summary = quarantine_summary(empty, "shapes", 20)
    assert (summary.n_rows, summary.reasons, summary.first) == (0, {}, [])


def test_a_partition_is_read_file_by_file(empty, monkeypatch):
    monkeypatch.setattr("vsel_platform.storage.parquet.ROWS_PER_FILE", 4)
    rows = [{"position": i, "reason": "r", "detail": "d"} for i in range(10)]
    publish(empty, "quarantine", {"dataset": "shapes"}, rows)
    pointer = empty.store.require("quarantine", {"dataset": "shapes"})
    assert [table.num_rows for table in parts(empty, pointer, ["position"])] == [4, 4, 2]
    assert quarantine_summary(empty, "shapes", 3).first == [(i, "r", "d") for i in range(3)]


@given(st.lists(st.lists(st.integers(0, 50), max_size=8), max_size=6), st.integers(1, 9))
def test_smallest_does_not_depend_on_how_rows_are_cut(chunks, k):
    tables = [pa.table({"a": pa.array(chunk, pa.int64())}) for chunk in chunks]
    found = smallest(tables, ["a"], k)
    if not chunks:
        assert found is None
    else:
        assert found["a"].to_pylist() == sorted(value for chunk in chunks for value in chunk)[:k]


def losses(*rows: tuple[str, str, float | None]) -> pa.Table:
    values = [
        {"sample_id": sample, "condition": condition, "loss_sum": loss, "loss_mean": loss, "n_tokens": 1, **NO_ENTROPY}
        for sample, condition, loss in rows
    ]
    return pa.Table.from_pylist(values, schema=rows_of("losses"))


def test_relevance_is_the_ratio_of_the_losses_and_missing_ones_are_nan():
    table = losses(
        ("b", "no_question", 2.0),
        ("b", "full", 1.0),
        ("a", "full", 3.0),
        ("a", "no_question", 2.0),
        ("c", "full", None),
        ("c", "no_question", 2.0),
        ("d", "full", 1.0),
        ("e", "full", 1.0),
        ("e", "no_question", 0.0),
    )
    assert relevance(table) == pytest.approx([1.5, 0.5, np.nan, np.nan, np.nan], nan_ok=True)
    assert relevance(losses()).shape == (0,)


def test_relevance_of_a_shard_is_that_of_its_reference_rows(ctx):
    found = {shard: relevance_of_shard(ctx, shard)["shapes"] for shard in SHARDS}
    here = {shard: [row["position"] for row in contents()[:12] if row["shard"] == shard] for shard in SHARDS}
    assert {shard: len(values) for shard, values in found.items()} == {s: len(rows) for s, rows in here.items()}
    everything = np.concatenate(list(found.values()))
    assert np.count_nonzero(np.isnan(everything)) == 1
    assert np.nanmin(everything) == pytest.approx(0.5)


def test_typicality_of_the_selection_is_part_of_the_pool(ctx):
    scores = scores_pointer(ctx, "shapes", "default")
    selected = pa.array([sha("row 1"), sha("row 2"), sha("unknown"), contents()[-1]["sample_id"]])
    pool, chosen = column_values(ctx, scores, "typicality", selected)
    assert len(pool) == N_IMAGES + N_IMAGES // 6
    assert sorted(chosen) == pytest.approx([0.14, 0.28])
    assert column_values(ctx, scores, "typicality")[1].size == 0


def test_task_difficulty_keeps_tasks_without_a_value_and_says_which_are_measured(ctx):
    found = {row.task: (row.difficulty, row.is_measured) for row in task_difficulty(ctx, "shapes", "default")}
    # With fewer than PreSel's `min_reference_rows` (3) the value is the mean of the other tasks.
    assert found == {TASKS[0]: (0.5, True), TASKS[1]: (0.75, True), TASKS[2]: (1.0, False), "text": (None, False)}
