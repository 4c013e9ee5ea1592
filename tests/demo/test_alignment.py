from vsel_platform.demo.alignment import VARIANTS, alignment_rows
from vsel_platform.demo.dataset import PlannedRows
from vsel_platform.demo.picture_tasks import CAPTION_QUESTIONS, NAME_QUESTIONS


def test_only_names_and_captions_are_taught(plan: PlannedRows) -> None:
    rows = alignment_rows(plan.splits.alignment[::10], 0)
    for row in rows:
        assert row.picture
        drawing = row.picture.parts[0].drawing
        for question, answer in row.turns:
            if question in NAME_QUESTIONS:
                assert answer == drawing.concept.name
            else:
                assert question in ("", *CAPTION_QUESTIONS)
                assert f"{drawing.vendor} drawing of {drawing.concept.name}" in answer
    assert len(rows) == 2 * len(VARIANTS) * len({row.picture.parts[0].drawing for row in rows if row.picture})


def test_no_picture_of_the_pool_or_the_evaluation_is_shown(plan: PlannedRows) -> None:
    taught = alignment_rows(plan.splits.alignment[::10], 0)
    shown = {drawing for row in taught if row.picture for drawing in row.picture.drawings}
    assert shown
    rows = [*plan.pool, *plan.evaluation, *plan.later]
    assert not shown & {drawing for row in rows if row.picture for drawing in row.picture.drawings}
