"""A stage of rows: what is stored is reused, what failed is tried again, a kill loses nothing that was finished."""

import pyarrow as pa
import pytest

from vsel_platform.models.images import ContentFailure
from vsel_platform.pipeline.context import Context, Inputs
from vsel_platform.pipeline.parts import PartLog
from vsel_platform.pipeline.row_stage import RowBatch, RowTask, run_rows
from vsel_platform.tables import TABLES

TABLE = "attention_maps"
KEY = {"fingerprint": "f1", "shard": "s-1"}
IDS = [f"{i:064x}" for i in range(6)]


@pytest.fixture
def ctx(make_project):
    return make_project("rows").context()


def table(ids, value=0.5):
    records = [
        {
            "sample_id": i,
            "n_steps": 2,
            "n_tokens": 4,
            "top_tokens": [1],
            "entropy": 1.0,
            "sharpness": 0.2,
            "mass": value,
        }
        for i in ids
    ]
    return pa.Table.from_pylist(records, schema=TABLES[TABLE].arrow_schema())


class Work:
    """Computes rows two at a time and keeps count; rows in `bad` fail, and `kill_after` batches end the process."""

    def __init__(self, bad=(), kill_after=None, value=0.5):
        self.bad, self.kill_after, self.value, self.asked = set(bad), kill_after, value, []

    def __call__(self, ids):
        for batch in range(0, len(ids), 2):
            if self.kill_after is not None and batch // 2 >= self.kill_after:
                raise KeyboardInterrupt
            part = ids[batch : batch + 2]
            self.asked += part
            failures = [ContentFailure(i, "broken", "no picture") for i in part if i in self.bad]
            yield RowBatch(table([i for i in part if i not in self.bad], self.value), failures, len(part))


def run(ctx, work, ids=IDS, key=KEY, **inputs):
    task = RowTask(
        TABLE, key, "code-1", Inputs(inputs.get("fingerprint", "in"), []), list(ids), "rows",
        lambda parts: {i for part in parts for i in part["sample_id"].to_pylist()}, work,
    )  # fmt: skip
    return run_rows(ctx, task, "stage")


def stored(ctx, key=KEY):
    return ctx.store.read_partition(TABLE, key)


def failures(ctx):
    return ctx.store.read_partition("signal_failures", {"signal": TABLE, **KEY}).to_pylist()


def test_rows_are_computed_once_and_sorted(ctx):
    first, again = Work(), Work()
    result = run(ctx, first, IDS[::-1])
    assert (result.computed, result.reused, result.failed, result.rows) == (6, 0, 0, 6)
    assert stored(ctx)["sample_id"].to_pylist() == IDS
    assert stored(ctx).schema.equals(TABLES[TABLE].arrow_schema())
    second = run(ctx, again)
    assert (second.computed, second.reused, again.asked) == (0, 6, [])
    assert second.data_version == result.data_version


def test_new_rows_are_added_and_rows_that_went_are_dropped(ctx):
    run(ctx, Work(), IDS[:4])
    work = Work(value=0.9)
    result = run(ctx, work, IDS[2:])
    assert work.asked == IDS[4:]
    assert (result.computed, result.reused) == (2, 2)
    assert stored(ctx)["sample_id"].to_pylist() == IDS[2:]
    assert stored(ctx)["mass"].to_pylist() == [0.5, 0.5, 0.9, 0.9]


def test_what_failed_has_its_reason_and_is_tried_again(ctx):
    result = run(ctx, Work(bad=[IDS[1], IDS[4]]))
    assert (result.computed, result.failed, result.rows) == (6, 2, 4)
    assert [(f["content_id"], f["reason"]) for f in failures(ctx)] == [(IDS[1], "broken"), (IDS[4], "broken")]
    work = Work(bad=[IDS[4]])
    result = run(ctx, work)
    assert work.asked == [IDS[1], IDS[4]]
    assert (result.computed, result.reused, result.failed, result.rows) == (2, 4, 1, 5)
    assert [f["content_id"] for f in failures(ctx)] == [IDS[4]]


def test_a_killed_run_goes_on_behind_its_finished_batches(ctx):
    with pytest.raises(KeyboardInterrupt):
        run(ctx, Work(kill_after=2))
    assert ctx.store.pointer(TABLE, KEY) is None
    work = Work()
    result = run(ctx, work)
    assert work.asked == IDS[4:]
    assert (result.computed, result.reused, result.rows) == (2, 4, 6)
    assert not list(ctx.store.files.list("work"))


def test_finished_batches_of_rows_that_are_no_longer_wanted_are_left_out(ctx):
    with pytest.raises(KeyboardInterrupt):
        run(ctx, Work(kill_after=1))
    result = run(ctx, Work(), IDS[1:3])
    assert stored(ctx)["sample_id"].to_pylist() == IDS[1:3]
    assert (result.computed, result.reused) == (1, 1)


def test_parts_of_another_partition_are_not_taken(ctx):
    with pytest.raises(KeyboardInterrupt):
        run(ctx, Work(kill_after=2))
    for key in ({"fingerprint": "f2", "shard": "s-1"}, {"fingerprint": "f1", "shard": "s-2"}):
        work = Work()
        run(ctx, work, key=key)
        assert work.asked == IDS


def test_a_row_that_is_computed_anew_by_another_job_has_one_value(ctx):
    PartLog(ctx.store.files, f"{TABLE}-f1-s-1").save(table(IDS[:2], 0.1))
    PartLog(ctx.store.files, f"{TABLE}-f1-s-1").save(table(IDS[1:3], 0.2))
    work = Work()
    assert run(ctx, work).rows == 6
    assert work.asked == IDS[3:]


def test_the_state_knows_what_it_was_made_of(ctx):
    result = run(ctx, Work(), fingerprint="rows-7")
    pointer = ctx.store.require(TABLE, KEY)
    assert (pointer.fingerprint, pointer.input_fingerprint, pointer.code_version) == ("f1", "rows-7", "code-1")
    assert result.references == [pointer.reference]
    assert (result.stage, result.partition) == ("stage", {"shard": "s-1"})


def test_progress_counts_failed_rows_too(ctx):
    steps = []
    reporting = Context(ctx.project, progress=lambda *step: steps.append(step))
    run(reporting, Work(bad=IDS[:3]))
    assert steps == [("rows", 2, 6), ("rows", 4, 6), ("rows", 6, 6)]


def test_no_rows_are_an_empty_table(ctx):
    result = run(ctx, Work(), [])
    assert (result.rows, result.computed) == (0, 0)
    assert stored(ctx).num_rows == 0
