"""A training that goes on from the checkpoint of another recipe."""

import pytest

from vsel_platform.models.lora_adapter import ADAPTER_WEIGHTS, BASE_ADAPTER
from vsel_platform.pipeline.training import checkpoint_is_current, parent_is_current

DRAWN = {"dataset": "shapes", "method": "random", "budget": {"rows": 8}}
RECIPES = {
    "parent": DRAWN,
    "child": DRAWN | {"seed": 2, "training": {"continue_from": "parent"}},
    "grandchild": DRAWN | {"seed": 3, "training": {"continue_from": "child"}},
}
CHANGES = {"recipes": RECIPES}


@pytest.fixture(scope="module")
def family(make_project):
    """Three recipes, each trained on from the one before; only the last one was asked for."""
    project = make_project("family")
    return project, project.drive(["grandchild"], CHANGES, train=True)


def test_the_run_of_a_child_trains_its_ancestors_first_and_evaluates_all(family):
    _, results = family
    trained = [result.partition["recipe"] for result in results if result.stage == "finetuned_checkpoint"]
    assert trained == ["parent", "child", "grandchild"]
    evaluated = [result.partition["key"] for result in results if result.stage == "evaluation"]
    assert sorted(evaluated) == ["child:held_out", "grandchild:held_out", "parent:held_out"]
    (child,) = [r for r in results if r.stage == "finetuned_checkpoint" and r.partition["recipe"] == "child"]
    assert child.metadata["continued from"].startswith("finetuned_checkpoint/recipe=parent")


def test_a_checkpoint_holds_those_that_it_went_on_from(family):
    project, _ = family
    ctx = project.context(CHANGES)
    pointers = {name: ctx.store.require("finetuned_checkpoint", {"recipe": name}) for name in RECIPES}
    weights = {
        (name, file.path.count(f"/{BASE_ADAPTER}")): ctx.store.files.read(file.path)
        for name, pointer in pointers.items()
        for file in pointer.files
        if file.path.endswith(ADAPTER_WEIGHTS)
    }
    assert sorted(weights) == [
        ("child", 0),
        ("child", 1),
        ("grandchild", 0),
        ("grandchild", 1),
        ("grandchild", 2),
        ("parent", 0),
    ]
    assert weights["child", 1] == weights["grandchild", 2] == weights["parent", 0]
    assert weights["grandchild", 1] == weights["child", 0]
    assert len({*weights.values()}) == 3
    assert pointers["parent"].reference in pointers["child"].inputs


def test_every_generation_answers_differently(family):
    project, _ = family
    store = project.context(CHANGES).store
    losses = {
        name: tuple(store.read_partition("answers", {"recipe": name, "benchmark": "held_out"})["loss_sum"].to_pylist())
        for name in ("base", *RECIPES)
    }
    assert len({*losses.values()}) == 4


def test_a_child_waits_for_its_parents_and_is_stale_with_them(family):
    project, _ = family
    ctx = project.context(CHANGES)
    assert all(parent_is_current(ctx, name) and checkpoint_is_current(ctx, name) for name in RECIPES)
    changed = project.context(CHANGES | {"training.lora.rank": 2})
    assert [parent_is_current(changed, name) for name in RECIPES] == [True, False, False]
    other = project.context({"recipes": RECIPES | {"parent": DRAWN | {"training": {"seed": 4}}}})
    assert not checkpoint_is_current(other, "parent")
    assert not parent_is_current(other, "grandchild"), "what its parent goes on from is not current"


def test_what_goes_on_from_another_is_no_row_of_the_leaderboard(family):
    project, _ = family
    rows = project.context(CHANGES).store.read_partition("leaderboard", {"benchmark": "held_out"}).to_pylist()
    assert [row["recipes"] for row in rows] == [["parent"]] * 2
