import pyarrow as pa
import pytest

from vsel_platform.reports.pictures import Excerpt
from vsel_platform.reports.ranking import (
    RANKING_ROWS,
    UNSCORED_ROWS,
    ReasonPlace,
    first_of_reasons,
    ranked_rows,
    reason_places,
)


def selection(*reasons: str) -> pa.Table:
    """A ranking with these reasons; reference rows have no score."""
    rows = [
        {"rank": i, "sample_id": f"s{i:04}", "position": i, "task": "t", "stratum": "image", "reason": reason,
         "score": None if reason == "reference" else 1 / i}
        for i, reason in enumerate(reasons, start=1)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows)


def test_reasons_stand_in_the_order_of_their_first_ranks():
    places = reason_places(selection("reference", "reference", "typical", "text", "typical"))
    assert places == [
        ReasonPlace("reference", 2, 1, 2, has_scores=False),
        ReasonPlace("typical", 2, 3, 5, has_scores=True),
        ReasonPlace("text", 1, 4, 4, has_scores=True),
    ]


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        (ReasonPlace("reference", 245, 1, 245, False), "Ranks 1 to 245 are reference rows, none with a score."),
        (ReasonPlace("typical", 1589, 246, 1894, True), "1,589 typical rows between ranks 246 and 1,894."),
        (ReasonPlace("text", 1, 7, 7, True), "Rank 7 is a text row."),
    ],
)
def test_places_in_words(place, sentence):
    assert place.sentence == sentence


def test_reference_rows_do_not_fill_the_list():
    order = selection(*["reference"] * 60, *["typical", "text"] * 60)
    shown = first_of_reasons(order, reason_places(order))
    reasons = shown["reason"].to_pylist()
    assert [reasons.count(name) for name in ("reference", "typical", "text")] == [UNSCORED_ROWS, 25, 25]
    assert shown["rank"].to_pylist()[: UNSCORED_ROWS + 2] == [1, 2, 3, 4, 5, 61, 63]


def test_a_ranking_without_scores_is_shown_all_the_same():
    order = selection(*["reference"] * 60)
    assert first_of_reasons(order, reason_places(order)).num_rows == RANKING_ROWS


def test_an_empty_selection_has_no_places():
    empty = selection("typical").slice(0, 0)
    assert reason_places(empty) == []
    assert ranked_rows(first_of_reasons(empty, []), {}) == []


def test_rows_have_the_begin_of_their_conversations():
    rows = ranked_rows(selection("typical", "typical"), {"s0001": Excerpt("How many?", "Two.", ())})
    assert [(row.rank, row.text) for row in rows] == [(1, "How many? → Two."), (2, "")]
