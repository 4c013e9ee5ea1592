"""Why PreSel took a row or not, and what would change it: a pure function of its columns and of what was taken."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from vsel_platform.errors import SelectionError
from vsel_platform.methods.presel_tasks import available_rows, rank_by_typicality
from vsel_platform.methods.presel_types import PreselOptions, PreselRows


@dataclass(frozen=True, slots=True)
class Explanation:
    """Facts about one row; None where a fact does not apply.

    `place` is the row's place among the `cluster_available` rows of its cluster by falling typicality, `quota` how
    many of them were taken, `cut` the lowest typicality taken.
    """

    is_selected: bool
    cluster: int | None
    typicality: float | None
    place: int | None
    cluster_available: int | None
    quota: int | None
    cut: float | None
    verdict: str
    change: str

    @property
    def sentence(self) -> str:
        """Verdict and change for people."""
        side, other = ("In", "out") if self.is_selected else ("Out", "in")
        return f"{side}: {self.verdict}. It would be {other} with {self.change}."


def explain(rows: PreselRows, taken: Collection[str], sample_id: str, options: PreselOptions) -> Explanation:
    """Explain one row, given the ids of the rows that were selected. Raises SelectionError for an unknown id."""
    if sample_id not in rows.sample_ids:
        raise SelectionError(f"{sample_id!r} is not a row of the dataset; a quarantined row cannot be explained")
    i = rows.sample_ids.index(sample_id)
    chosen = set(taken)
    standing = _standing(rows, chosen, i, options)
    verdict, change = _words(rows, i, sample_id in chosen, standing)
    return Explanation(
        sample_id in chosen,
        int(rows.clusters[i]) if rows.clusters[i] >= 0 else None,
        float(rows.typicality[i]) if available_rows(rows, [i]) else None,
        *standing,
        verdict,
        change,
    )


Standing = tuple[int | None, int | None, int | None, float | None]


def _standing(rows: PreselRows, taken: set[str], i: int, options: PreselOptions) -> Standing:
    """(place, available rows, rows taken, lowest typicality taken) in the row's cluster."""
    if not available_rows(rows, [i]):
        return None, None, None, None
    peers = _cluster_peers(rows, i)
    ranked = rank_by_typicality(rows, peers, by_image=options.unit == "image")
    chosen = [j for j in peers if rows.sample_ids[j] in taken]
    cut = min((float(rows.typicality[j]) for j in chosen), default=None)
    return ranked.index(i) + 1, len(peers), len(chosen), cut


def _cluster_peers(rows: PreselRows, i: int) -> Sequence[int]:
    same = (j for j, task in enumerate(rows.tasks) if task == rows.tasks[i] and rows.clusters[j] == rows.clusters[i])
    return available_rows(rows, list(same))


def _words(rows: PreselRows, i: int, is_selected: bool, standing: Standing) -> tuple[str, str]:
    """What happened, and what would change it."""
    if rows.image_ids[i] is None:
        return (
            "a text-only row: they form a stratum of their own, drawn by a stable hash",
            "another seed or text_policy" if is_selected else "another seed or text_policy, or a larger budget",
        )
    if rows.is_reference[i]:
        return (
            "a reference row: they have instructions already and come first"
            if is_selected
            else "a reference row, but the budget is smaller than the reference subset",
            "another reference subset (its seed or fraction)" if is_selected else "a larger budget",
        )
    place, available, quota, cut = standing
    if place is None or quota is None:
        return "its image has no typicality, so it cannot be ranked", "an embedding of its image (see signal_failures)"
    where = f"place {place} of {available} by typicality in cluster {rows.clusters[i]}, of which {quota} were taken"
    if is_selected:
        return where, "a smaller budget, a higher difficulty of its task, or more typical rows in the cluster"
    if cut is None:
        return where, "a budget of its task that gives the cluster a place"
    if rows.typicality[i] == cut:
        where += (
            "; its typicality is the lowest one taken: the first row of every image goes first, then the id decides"
        )
    return where, (
        f"{max(1, place - quota)} more places for the cluster (a larger budget, a lower difficulty of its task), or a "
        f"typicality above {cut:.6f}"
    )
