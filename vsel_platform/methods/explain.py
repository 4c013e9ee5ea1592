"""Why a composed method took a row or not: its place by score among the rows that it competes with."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from vsel_platform.errors import SelectionError
from vsel_platform.methods.api import Floats, Groups, Signals
from vsel_platform.methods.quotas import NO_VECTOR
from vsel_platform.methods.registry import Composition


@dataclass(frozen=True, slots=True)
class Standing:
    """Facts about one row; None where a fact does not apply.

    group: what it competes in. place: by falling score among `available` rows of the group, of which `taken` were
    selected. cut: the lowest score selected there.
    """

    is_selected: bool
    score: float | None
    group: str | None
    place: int | None
    available: int | None
    taken: int | None
    cut: float | None
    sentence: str


def standing(
    signals: Signals, scores: Floats, method: Composition, selected: Collection[str], sample_id: str
) -> Standing:
    """Explain one row, given all scores [n] and the ids that were selected. Raises SelectionError for an unknown id."""
    if sample_id not in signals.sample_ids:
        raise SelectionError(f"{sample_id!r} is not a row of the dataset; a quarantined row cannot be explained")
    i = signals.sample_ids.index(sample_id)
    chosen = set(selected)
    is_in = sample_id in chosen
    side = "In" if is_in else "Out"
    is_text = np.array([image is None for image in signals.image_ids], np.bool_)
    in_stratum = method.score.text == "stratum"
    if in_stratum and is_text[i]:
        words = "a text-only row; the score needs an image, so they are a stratum of their own, drawn by a stable hash"
        sentence = f"{side}: {words}. Another seed or text_policy would change it."
        return Standing(is_in, None, "text", None, None, None, None, sentence)
    if not np.isfinite(scores[i]):
        words = f"the row has no {method.score.name} score, so it cannot be ranked (see the table signal_failures)"
        return Standing(is_in, None, None, None, None, None, None, f"{side}: {words}.")
    can_rank = np.isfinite(scores) & ~(is_text & in_stratum)
    groups = method.quota.groups(signals, np.where(can_rank, scores, np.nan), method.quota_options)
    if groups.labels[i] < 0:
        words = f"the quota {method.quota.name} leaves the row out, whatever the budget"
        sentence = f"{side}: {words}. Other options of the quota, or another score, would change it."
        return Standing(is_in, float(scores[i]), None, None, None, None, None, sentence)
    peers = np.flatnonzero(can_rank & (groups.labels == groups.labels[i]))
    place = int((scores[peers] > scores[i]).sum() + ((scores[peers] == scores[i]) & (peers < i)).sum()) + 1
    taken = [j for j in peers.tolist() if signals.sample_ids[j] in chosen]
    cut = float(scores[taken].min()) if taken else None
    group = groups.names[int(groups.labels[i])]
    words = f"place {place} of {len(peers)} by score {_where(groups, group, signals.tasks[i])}"
    change = _change(is_in, place, len(taken), cut, method)
    if (
        cut == scores[i]
        and (scores[peers] == cut).sum() > (scores[taken] == cut).sum()
        and method.diversity.name == "top"
    ):
        change += " Rows in and rows out have this same score: among them the id decides."
    sentence = f"{side}: {words}, of which {len(taken)} were taken. {change}"
    return Standing(is_in, float(scores[i]), group, place, len(peers), len(taken), cut, sentence)


def _where(groups: Groups, group: str, task: str) -> str:
    """The group in words: quotas name groups by task, by cluster, or by stratum."""
    if len(groups.names) == 1:
        return "among all rows"
    if group == NO_VECTOR:
        return "among the rows without a vector"
    return f"in task {group}" if group == task else f"in {group}"


def _change(is_in: bool, place: int, taken: int, cut: float | None, method: Composition) -> str:
    if method.diversity.name != "top":
        other = "out" if is_in else "in"
        return f"It would be {other} if the diversity rule {method.diversity.name} had other rows to choose from."
    if is_in:
        return "It would be out with a smaller budget or more rows with a higher score."
    if cut is None:
        return "It would be in with a budget that gives the group a place."
    return f"It would be in with {max(1, place - taken)} more places, or a score above {cut:.6g}."
