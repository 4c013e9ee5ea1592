"""PreSel inside one task: quotas of its clusters, and the most typical rows of each."""

from collections.abc import Sequence

import numpy as np

from vsel_platform.methods.presel_types import Mode, PreselOptions, PreselRows
from vsel_platform.selection.budgets import largest_remainder


def select_task(
    rows: PreselRows, members: Sequence[int], budget: int, options: PreselOptions, *, mode: Mode = "default"
) -> list[int]:
    """Rows of one task to select: positions in `rows`, at most `budget` of `members`, no reference rows.

    Default: `budget` is split over the clusters by largest remainder of their available rows; inside a cluster the
    most typical come first; the order lets clusters take turns in proportion, so that a shorter list of it is
    balanced too. A row without a typicality is not available. With unit `image` only whole images are taken: first
    inside the quota of their cluster, then in what these left of the budget, skipping images that do not fit; so
    the budget may not be used up.

    Released: counts and order of the released code, see `released_quotas`; ties keep the order of `members`.
    """
    if mode == "released":
        return _released(rows, members, budget)
    by_image = options.unit == "image"
    ranked = np.array(rank_by_typicality(rows, available_rows(rows, members), by_image=by_image), np.int64)
    if not len(ranked):
        return []
    ranked = ranked[np.argsort(rows.clusters[ranked], kind="stable")]
    _, starts, sizes = np.unique(rows.clusters[ranked], return_index=True, return_counts=True)
    quotas = largest_remainder(sizes.tolist(), max(0, min(budget, len(ranked))))
    if by_image:
        clusters = [part.tolist() for part in np.split(ranked, starts[1:])]
        return _whole_images(rows, clusters, quotas)
    place = np.arange(len(ranked)) - np.repeat(starts, sizes)
    quota = np.repeat(np.array(quotas, np.int64), sizes)
    taken = place < quota
    turns = np.argsort((place[taken] + 0.5) / quota[taken], kind="stable")
    return [int(i) for i in ranked[taken][turns]]


def available_rows(rows: PreselRows, members: Sequence[int]) -> list[int]:
    """Those that typicality can select: image rows outside the reference whose typicality is finite."""
    free = np.isfinite(rows.typicality) & ~rows.is_reference
    images = rows.image_ids
    return [i for i in members if free[i] and images[i] is not None]


def rank_by_typicality(rows: PreselRows, members: Sequence[int], *, by_image: bool) -> list[int]:
    """Members by falling typicality; missing ones last; ties by sample id.

    By row (default) the first row of every image comes before the second row of any, so that rows of one image do
    not crowd out other images; by image all rows of an image stay together.
    """
    by_id = sorted(members, key=rows.sample_ids.__getitem__)
    first: dict[str | None, int] = {}
    seen: dict[str | None, int] = {}
    place = np.empty(len(by_id), np.int64)
    for position, i in enumerate(by_id):
        image = rows.image_ids[i]
        if by_image:
            place[position] = first.setdefault(image, position)
        else:
            place[position] = seen[image] = seen.get(image, -1) + 1
    falling = -rows.typicality[by_id]
    order = np.lexsort((place, falling)) if by_image else np.lexsort((falling, place, np.isnan(falling)))
    return [by_id[position] for position in order]


def _whole_images(rows: PreselRows, ranked: list[list[int]], quotas: list[int]) -> list[int]:
    """Rows of whole images, image after image, within the quotas and then within what the quotas left."""
    taken: list[tuple[float, int, list[int]]] = []
    skipped: list[tuple[float, str, list[int]]] = []
    left = 0
    for label, (found, quota) in enumerate(zip(ranked, quotas, strict=True)):
        room = quota
        for block in _blocks_of_images(rows, found):
            if len(block) <= room:
                taken.append(((quota - room + 0.5) / quota, label, block))
                room -= len(block)
            else:
                skipped.append((-float(rows.typicality[block[0]]), rows.sample_ids[block[0]], block))
        left += room
    result = [i for *_, block in sorted(taken) for i in block]
    for *_, block in sorted(skipped):
        if len(block) <= left:
            result += block
            left -= len(block)
    return result


def _blocks_of_images(rows: PreselRows, ranked: list[int]) -> list[list[int]]:
    blocks: dict[str | None, list[int]] = {}
    for i in ranked:
        blocks.setdefault(rows.image_ids[i], []).append(i)
    return list(blocks.values())


def released_quotas(sizes: Sequence[int], available: Sequence[int], budget: int) -> list[int]:
    """Rows per cluster in the released code, given total and available (not reference) rows of each cluster.

    Proportional to the available rows, rounded half to even, at most the available ones; then ONE pass that adds
    one each from the largest cluster down, or takes one each from the smallest up.
    """
    total = sum(available)
    quotas = [min(round((m / total if total else 0) * budget), m) for m in available]
    missing = budget - sum(quotas)
    step = 1 if missing > 0 else -1
    for label in sorted(range(len(sizes)), key=lambda c: -step * sizes[c]):
        if missing != 0 and (quotas[label] < available[label] if step > 0 else quotas[label] > 0):
            quotas[label] += step
            missing -= step
    return quotas


def _released(rows: PreselRows, members: Sequence[int], budget: int) -> list[int]:
    positions = np.asarray(members, np.int64)
    labels = rows.clusters[positions]
    free = ~rows.is_reference[positions]
    found = np.unique(labels).tolist()
    by_cluster = [positions[(labels == label) & free] for label in found]
    quotas = released_quotas([int((labels == label).sum()) for label in found], [len(m) for m in by_cluster], budget)
    selected: list[int] = []
    for cluster, quota in zip(by_cluster, quotas, strict=True):
        # NaN (a row that is alone) sorts last.
        selected += cluster[np.argsort(-rows.typicality[cluster], kind="stable")[:quota]].tolist()
    return selected
