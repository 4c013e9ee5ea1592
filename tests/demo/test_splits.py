from collections import Counter, defaultdict

from vsel_platform.demo.artwork import Drawing
from vsel_platform.demo.dataset import PlannedRows
from vsel_platform.demo.splits import is_held_out, split_drawings


def test_every_drawing_serves_exactly_one_purpose(plan: PlannedRows) -> None:
    sets = (plan.splits.alignment, plan.splits.pool, plan.splits.evaluation)
    everything = [drawing.id for part in sets for drawing in part]
    assert len(everything) == len(set(everything)) > 5000
    assert all(len(part) > 400 for part in sets)


def test_a_held_out_drawing_has_relatives_in_the_pool(plan: PlannedRows) -> None:
    """Otherwise nothing in the pool could teach what it shows."""
    known = {drawing.concept.key for drawing in plan.splits.pool}
    assert all(drawing.concept.key in known for drawing in plan.splits.evaluation)


def test_the_base_never_sees_clocks_and_number_keys(plan: PlannedRows) -> None:
    assert not [drawing for drawing in plan.splits.alignment if drawing.concept.reads]
    held_out = {drawing.concept.reads for drawing in plan.splits.evaluation if drawing.concept.reads}
    assert len(held_out) == 24 + 10


def test_only_held_out_concepts_are_evaluated(plan: PlannedRows) -> None:
    pictured = [drawing.concept for drawing in plan.splits.evaluation if not drawing.concept.reads]
    assert all(is_held_out(concept) for concept in pictured)


def test_all_vendors_take_part_everywhere(plan: PlannedRows) -> None:
    for part in (plan.splits.alignment, plan.splits.pool, plan.splits.evaluation):
        shares = Counter(drawing.vendor for drawing in part)
        assert len(shares) == 3
        assert min(shares.values()) > 0.2 * len(part)


def test_the_split_of_a_drawing_does_not_depend_on_other_concepts(drawings: list[Drawing], plan: PlannedRows) -> None:
    groups: dict[str, list[Drawing]] = defaultdict(list)
    for drawing in drawings:
        groups[drawing.concept.key].append(drawing)
    some = [drawing for group in list(groups.values())[::7] for drawing in reversed(group)]
    part = split_drawings(some)
    assert set(part.pool) <= set(plan.splits.pool)
    assert set(part.evaluation) <= set(plan.splits.evaluation)
    assert set(part.alignment) <= set(plan.splits.alignment)
