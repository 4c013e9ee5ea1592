"""Windows of rows."""

from tiny_llava import conversation, picture, tiny_adapter

from vsel_platform.errors import DataError
from vsel_platform.signals.answer_scoring import score_windows
from vsel_platform.signals.losses import LossRow
from vsel_platform.signals.windows import WindowOptions

ADAPTER = tiny_adapter()
ROWS = [LossRow(f"r{i}", conversation("<image>\nWhat?", "It is red."), [f"i{i}"]) for i in range(5)]


def own_render(row, condition, shown):
    return ADAPTER.render(row.turns, len(row.images), condition)


def windows(rows, conditions=("full", "no_question"), render=own_render, **options):
    stream = score_windows(
        ADAPTER, rows, picture, conditions=lambda row: conditions, options=WindowOptions(**options), render=render
    )
    return list(stream)


def test_windows_hold_consecutive_rows_in_order():
    found = windows(ROWS, window_rows=2)
    assert [[result.row.sample_id for result in window] for window in found] == [["r0", "r1"], ["r2", "r3"], ["r4"]]


def test_results_hold_every_condition_in_the_order_asked_for():
    ((result,),) = windows(ROWS[:1], conditions=("no_question", "full"))
    assert list(result.rendered) == ["no_question", "full"]
    assert set(result.scores) == {"no_question", "full"}
    assert result.failure is None


def test_rows_whose_targets_differ_between_conditions_fail():
    def render(row, condition, shown):
        answer = "red" if condition == "full" else "white"
        return ADAPTER.render(conversation("<image>", answer), 1)

    ((result,),) = windows(ROWS[:1], render=render)
    assert result.failure.reason == "targets_differ"
    assert not result.scores


def test_an_error_of_the_renderer_fails_the_row_alone():
    def render(row, condition, shown):
        if row.sample_id == "r1":
            raise DataError("no such role")
        return own_render(row, condition, shown)

    (window,) = windows(ROWS, render=render)
    assert [result.failure and result.failure.detail for result in window] == [None, "no such role", None, None, None]


def test_images_of_rows_without_a_condition_are_not_opened():
    opened = []
    rows = [LossRow("x", conversation("<image>\nWhat?", "Red."), ["never"]), ROWS[0]]
    stream = score_windows(
        ADAPTER,
        rows,
        lambda image: (opened.append(image), picture(image))[1],
        conditions=lambda row: () if row.sample_id == "x" else ("full",),
        options=WindowOptions(),
        render=own_render,
    )
    list(stream)
    assert opened == ["i0"]


def test_rows_that_are_scored_under_no_condition_have_neither_scores_nor_failure():
    stream = score_windows(
        ADAPTER,
        ROWS[:2],
        picture,
        conditions=lambda row: ("full",) if row.sample_id == "r1" else (),
        options=WindowOptions(),
        render=own_render,
    )
    ((passed_over, scored),) = stream
    assert (passed_over.rendered, passed_over.scores, passed_over.failure) == ({}, {}, None)
    assert list(scored.scores) == ["full"]
