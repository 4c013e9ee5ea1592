import numpy as np

from vsel_platform.demo.artwork import load_concepts
from vsel_platform.demo.chance import Chance
from vsel_platform.demo.colours import main_colour
from vsel_platform.demo.dataset import PlannedRows
from vsel_platform.demo.rows import Row, Source
from vsel_platform.demo.scene_tasks import count_row, position_row, reading_row


def rows_of(plan: PlannedRows, task: str) -> list[Row]:
    return [row for row in [*plan.pool, *plan.evaluation] if row.task == task]


def test_counts_are_what_the_pixels_show(plan: PlannedRows) -> None:
    rows = rows_of(plan, "count")
    for row in rows[::5]:
        assert row.picture
        drawn = np.asarray(row.picture.draw()).min(axis=2)[:63, :63] < 254
        cells = drawn.reshape(3, 21, 3, 21).any(axis=(1, 3))
        answers = {
            "top row": str(cells[0].sum()),
            "middle row": str(cells[1].sum()),
            "bottom row": str(cells[2].sum()),
            "centre": "no" if cells[1, 1] else "yes",
        }
        assert row.turns[0][1] == str(cells.sum())
        for question, answer in row.turns[1:]:
            assert answer == next(value for key, value in answers.items() if key in question)
    assert {row.turns[0][1] for row in rows} == set("123456")


def test_positions_names_and_colours_are_where_they_are(plan: PlannedRows) -> None:
    kinds = set()
    for row in rows_of(plan, "position"):
        assert row.picture
        first, second = row.picture.parts
        places = ("left", "right") if second.left > first.left else ("top", "bottom")
        assert second.left > first.left or second.top > first.top
        at = dict(zip(places, (first.drawing, second.drawing), strict=True))
        for question, answer in row.turns:
            words = question.removesuffix("?").split()
            if question.startswith("Where is the "):
                assert at[answer].concept.name == question.removeprefix("Where is the ").removesuffix("?")
            elif question.startswith("What is on the "):
                assert at[words[-1]].concept.name == answer
            elif question.startswith("Which colour is on the "):
                assert main_colour(at[words[-1]]) == answer
            else:
                others = [main_colour(drawing) for place, drawing in at.items() if place != answer]
                assert main_colour(at[answer]) == words[-1]
                assert words[-1] not in others
            kinds.add(" ".join(words[:3]))
    assert {"Where is the", "What is on", "Which colour is", "Which side is"} <= kinds


def test_times_and_numbers_are_what_clocks_and_keys_read(plan: PlannedRows) -> None:
    lengths = set()
    for row in rows_of(plan, "reading"):
        assert row.picture
        shown = [part.drawing.concept.reads or "?" for part in sorted(row.picture.parts, key=lambda p: p.left)]
        answer = row.turns[0][1]
        assert answer == "".join(shown)
        for question, second in row.turns[1:]:
            if question == "Is it a full hour?":
                assert second == ("yes" if answer.endswith(":00") else "no")
            else:
                assert (question, second) == ("What is the last digit?", answer[-1])
        lengths.add(len(shown))
    assert lengths == {1, 2, 3}


def test_without_drawings_there_are_no_rows() -> None:
    empty = Source((), (), tuple(load_concepts()))
    assert [task(empty, Chance(0, "x")) for task in (count_row, position_row, reading_row)] == [None] * 3
