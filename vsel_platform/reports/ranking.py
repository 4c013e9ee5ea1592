"""The ranking of a selection as its page lists it: the first rows of every reason, and where each reason stands."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from vsel_platform.reports.pictures import Excerpt
from vsel_platform.reports.style import number

RANKING_ROWS = 50
UNSCORED_ROWS = 5
_COLUMNS = ("rank", "sample_id", "position", "task", "stratum", "reason", "score")


@dataclass(frozen=True, slots=True)
class RankedRow:
    """A selected row as the page lists it."""

    rank: int
    sample_id: str
    position: int
    task: str
    stratum: str
    reason: str
    score: float | None
    text: str


@dataclass(frozen=True, slots=True)
class ReasonPlace:
    """Where the rows of a reason stand in the ranking."""

    reason: str
    n_rows: int
    first: int
    last: int
    has_scores: bool

    @property
    def sentence(self) -> str:
        """`Ranks 1 to 245 are reference rows, none with a score.`"""
        first, last = number(self.first), number(self.last)
        score = "" if self.has_scores else ", without a score" if self.n_rows == 1 else ", none with a score"
        if self.n_rows == 1:
            return f"Rank {first} is a {self.reason} row{score}."
        if self.last - self.first + 1 != self.n_rows:
            return f"{number(self.n_rows)} {self.reason} rows between ranks {first} and {last}{score}."
        return f"Ranks {first} to {last} are {self.reason} rows{score}."


def reason_places(order: pa.Table) -> list[ReasonPlace]:
    """Places of all reasons, by their first rank; `order` is `selected_subset` in rank order."""
    groups = order.group_by("reason").aggregate(
        [("rank", "count"), ("rank", "min"), ("rank", "max"), ("score", "count")]
    )
    names = ("reason", "rank_count", "rank_min", "rank_max", "score_count")
    rows = zip(*(groups[name].to_pylist() for name in names), strict=True)
    places = [ReasonPlace(reason, n, first, last, scored > 0) for reason, n, first, last, scored in rows]
    return sorted(places, key=lambda place: place.first)


def first_of_reasons(order: pa.Table, places: list[ReasonPlace]) -> pa.Table:
    """The first rows of every reason, one reason after the other: about 50 in all, few of those without a score."""
    scored = sum(place.has_scores for place in places)
    each = RANKING_ROWS // max(scored, 1)
    parts = [order.slice(0, 0)]
    for place in places:
        rows = order.filter(pc.equal(order["reason"], place.reason))
        parts.append(rows.slice(0, each if place.has_scores or not scored else UNSCORED_ROWS))
    return pa.concat_tables(parts)


def ranked_rows(rows: pa.Table, texts: dict[str, Excerpt]) -> list[RankedRow]:
    """Rows with the begin of their conversations."""
    made = []
    for row in rows.select(list(_COLUMNS)).to_pylist():
        excerpt = texts.get(row["sample_id"])
        made.append(RankedRow(**row, text=excerpt.text(90, 60) if excerpt else ""))
    return made
