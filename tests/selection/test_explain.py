"""An explanation says where a row stands and what would change that, and is right about it."""

from dataclasses import replace

import numpy as np
import pytest

from vsel_platform.errors import SelectionError
from vsel_platform.methods.presel import PreselOptions, PreselRows, presel_select
from vsel_platform.selection.explain import explain

OPTIONS = PreselOptions()


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    images = [None if i < 10 else f"i{i:03d}" for i in range(120)]
    scores = np.where([image is None for image in images], np.nan, rng.random(120).round(6))
    scores[50] = np.nan
    return PreselRows(
        [f"r{i:03d}" for i in range(120)],
        ["text" if i < 10 else f"t{i % 2}" for i in range(120)],
        images,
        np.array([i >= 10 and i % 20 == 1 for i in range(120)]),
        np.array([-1 if image is None else i % 3 for i, image in enumerate(images)], np.int32),
        scores,
    )


def select(rows, budget=40):
    result = presel_select(rows, budget, {"t0": 0.5, "t1": 0.6}, OPTIONS, seed=0)
    return {row.sample_id for row in result.rows}


def test_typical_rows_are_in_exactly_up_to_the_quota(rows):
    taken = select(rows)
    reached = set()
    for name, image, drawn in zip(rows.sample_ids, rows.image_ids, rows.is_reference, strict=True):
        found = explain(rows, taken, name, OPTIONS)
        if image is None or drawn or found.place is None:
            continue
        assert found.is_selected == (found.place <= found.quota)
        assert (found.typicality >= found.cut) == found.is_selected
        reached.add(found.is_selected)
    assert reached == {True, False}


def test_the_change_it_names_works(rows):
    taken = select(rows)
    outside = {name: explain(rows, taken, name, OPTIONS) for name in rows.sample_ids if name not in taken}
    name, found = next((name, e) for name, e in outside.items() if e.place is not None)
    assert f"typicality above {found.cut:.6f}" in found.change
    better = rows.typicality.copy()
    better[rows.sample_ids.index(name)] = found.cut + 1e-6
    changed = replace(rows, typicality=better)
    assert explain(changed, select(changed), name, OPTIONS).is_selected


def test_a_tie_with_the_lowest_row_taken_is_told(rows):
    taken = select(rows)
    outside = {name: explain(rows, taken, name, OPTIONS) for name in rows.sample_ids if name not in taken}
    name, found = next((name, e) for name, e in outside.items() if e.place is not None)
    assert "lowest one taken" not in found.sentence
    equal = rows.typicality.copy()
    equal[rows.sample_ids.index(name)] = found.cut
    tied = explain(replace(rows, typicality=equal), taken, name, OPTIONS)
    assert "its typicality is the lowest one taken: the first row of every image goes first, then" in tied.verdict


@pytest.mark.parametrize(("name", "verdict"), [
    ("r003", "text-only row"), ("r021", "reference row"), ("r050", "no typicality"),
])  # fmt: skip
def test_other_strata(rows, name, verdict):
    found = explain(rows, select(rows), name, OPTIONS)
    assert verdict in found.verdict
    assert found.change
    assert found.place is None


def test_a_reference_row_can_be_outside_a_tiny_budget(rows):
    taken = select(rows, 2)
    left_out = [i for i in np.flatnonzero(rows.is_reference) if rows.sample_ids[i] not in taken]
    found = explain(rows, taken, rows.sample_ids[left_out[0]], OPTIONS)
    assert found.change == "a larger budget"


def test_an_unknown_row_is_refused(rows):
    with pytest.raises(SelectionError, match="not a row"):
        explain(rows, select(rows), "nope", OPTIONS)
