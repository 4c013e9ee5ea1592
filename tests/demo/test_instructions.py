from collections import Counter

from vsel_platform.demo.artwork import load_concepts
from vsel_platform.demo.broken import broken_rows
from vsel_platform.demo.dataset import PlannedRows
from vsel_platform.demo.instructions import (
    COPIED_ROWS,
    EVALUATION_ROWS_PER_TASK,
    NEW_ROWS_PER_TASK,
    POOL_ROWS,
    evaluation_rows,
    new_rows,
    numbered,
    pool_json,
    pool_rows,
)
from vsel_platform.demo.rows import Row
from vsel_platform.demo.splits import Splits


def test_the_pool_has_the_promised_rows_tasks_and_images(plan: PlannedRows) -> None:
    assert 6 <= len(POOL_ROWS) <= 10
    assert Counter(row.task for row in plan.pool) == POOL_ROWS
    assert len({row.picture.path for row in plan.pool if row.picture}) >= 4000
    assert len(set(plan.pool)) == len(plan.pool)


def test_many_rows_have_several_turns(plan: PlannedRows) -> None:
    lengths = Counter(len(row.turns) for row in plan.pool)
    assert sum(count for length, count in lengths.items() if length > 1) > len(plan.pool) / 2


def test_the_evaluation_has_every_task_and_no_drawing_of_the_pool(plan: PlannedRows) -> None:
    assert Counter(row.task for row in plan.evaluation) == dict.fromkeys(POOL_ROWS, EVALUATION_ROWS_PER_TASK)
    held_out = {drawing for row in plan.evaluation if row.picture for drawing in row.picture.drawings}
    used = {drawing for row in [*plan.pool, *plan.later] if row.picture for drawing in row.picture.drawings}
    seen_by_base = {drawing.id for drawing in plan.splits.alignment}
    assert held_out
    assert not held_out & used
    assert not held_out & seen_by_base
    assert not used & seen_by_base


def test_no_held_out_picture_has_the_bytes_of_another_one(plan: PlannedRows) -> None:
    def pixels(rows: list[Row]) -> set[bytes]:
        pictures = {row.picture.path: row.picture for row in rows if row.picture and row.task in ("name", "colour")}
        return {pictures[path].draw().tobytes() for path in sorted(pictures)}

    assert not pixels(plan.evaluation) & pixels(plan.pool)


def test_the_later_batch_is_about_one_percent_of_new_pictures(plan: PlannedRows) -> None:
    assert len(plan.later) == 6 * NEW_ROWS_PER_TASK
    assert 0.005 < len(plan.later) / len(plan.pool) < 0.015
    known = {row.picture.path for row in [*plan.pool, *plan.evaluation] if row.picture}
    assert not known & {row.picture.path for row in plan.later if row.picture}
    assert all(row.picture and row.picture.path.endswith("-turned.png") for row in plan.later)


def test_rows_depend_on_the_seed_alone(plan: PlannedRows) -> None:
    concepts = load_concepts()
    splits = Splits((), plan.splits.pool[::20], plan.splits.evaluation[::10])
    for make in (evaluation_rows, new_rows, pool_rows):
        assert make(splits, concepts, 7) == make(splits, concepts, 7)
        assert make(splits, concepts, 7) != make(splits, concepts, 8)


def test_the_pool_file_has_copies_and_broken_rows_in_between(plan: PlannedRows) -> None:
    values = pool_json(plan.pool, 12345)
    good = numbered(plan.pool, "emoji")
    n_broken = len(broken_rows("x"))
    assert len(values) == len(good) + 2 * COPIED_ROWS + n_broken
    times = Counter(map(str, values))
    texts = [str(value) for value in good]
    assert sum(times[text] == 2 for text in texts) == COPIED_ROWS
    renamed = [str(value).replace("-copy", "", 1) for value in values if "-copy" in str(value)[:30]]
    assert len(renamed) == COPIED_ROWS
    assert set(renamed) <= set(texts)
    assert values[:100] == good[:100]


def test_ids_are_numbered(plan: PlannedRows) -> None:
    assert [row["id"] for row in numbered(plan.later[:3], "new")] == ["new-00000", "new-00001", "new-00002"]
