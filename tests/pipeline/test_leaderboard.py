import pytest

from vsel_platform.pipeline.leaderboard import PAGE, compared_recipes, is_current, label_of, run, takes_part
from vsel_platform.pipeline.selection_cost import selection_seconds

HELD_OUT = {"benchmark": "held_out"}
TWIN = {"dataset": "shapes", "method": "random", "budget": {"percent": 25}, "seed": 7}


def board(ctx):
    rows = ctx.store.read_partition("leaderboard", HELD_OUT).to_pylist()
    return {(row["measure"], row["label"]): row for row in rows}


@pytest.mark.parametrize(
    ("settings", "label"),
    [
        ({"method": "random"}, "random"),
        ({"method": "random", "budget": {"percent": 100}}, "full"),
        ({"method": "presel", "budget": {"percent": 100}}, "presel"),
        ({"method": "presel", "mode": "released", "seed": 3, "rounds": 1}, "presel (released)"),
        ({"method": "presel", "options": {"n_neighbours": 3}}, "presel n_neighbours=3"),
        ({"method": "vig", "quota": "task", "score": "perplexity"}, "vig quota=task score=perplexity"),
        ({"method": "vig", "text_policy": "none"}, "vig text_policy=none"),
        ({"method": "random", "budget": {"rows": 3}, "training": {"seed": 1}}, "random"),
    ],
)
def test_a_label_is_what_sets_a_recipe_apart_but_for_its_seeds_and_budget(finished, settings, label):
    ctx = finished.context({"recipes.one": {"dataset": "shapes"} | settings})
    assert label_of(ctx, ctx.project.recipe("one")) == label


def test_recipes_of_two_datasets_are_told_apart(finished):
    two = {"datasets.other": {"source": "other.json"}, "recipes.far": TWIN | {"dataset": "other"}}
    ctx = finished.context(two)
    labels = [label_of(ctx, ctx.project.recipe(name)) for name in ("random", "far")]
    assert labels == ["random dataset=shapes", "random dataset=other"]


def test_the_board_has_every_method_with_its_metrics_and_costs(ctx):
    found = board(ctx)
    assert {*found} == {(m, label) for m in ("exact_match", "loss") for label in ("presel", "random")}
    stored = ctx.store.read_partition("evaluation", {"recipe": "presel", **HELD_OUT}).to_pylist()
    values = {row["measure"]: row["value"] for row in stored if not row["category"]}
    assert {name: found[name, "presel"]["value"] for name in values} == pytest.approx(values)
    row = found["loss", "presel"]
    assert (row["recipes"], row["n_rows"], row["n_seeds"], row["unit"]) == (["presel"], 30, 1, "nat/token")
    assert row["budget"] == pytest.approx(
        100 * 30 / ctx.store.require("manifest", {"dataset": "shapes"}).rows, abs=1e-3
    )
    assert row["selection_seconds"] == pytest.approx(selection_seconds(ctx, "presel"))
    assert row["training_seconds"] > 0
    pages = [file.path.rsplit("/", 1)[-1] for file in ctx.store.require(PAGE, HELD_OUT).files]
    assert sorted(pages) == ["exact_match.html", "exact_match.md", "loss.html", "loss.md"]


def test_recipes_that_differ_in_their_seeds_are_one_row(copied):
    recipes = {"recipes.twin": TWIN, "recipes.again": TWIN | {"seed": 12345, "training": {"seed": 5}}}
    copied.drive(["twin", "again"], recipes, train=True)
    ctx = copied.context(recipes)
    found = board(ctx)
    drawn = found["loss", "random"]
    assert sorted(drawn["recipes"]) == ["again", "random", "twin"]
    assert drawn["n_seeds"] == 3
    assert drawn["seed_sd"] > 0
    assert drawn["verdict"] == "random"
    each = [
        ctx.store.read_partition("evaluation", {"recipe": name, **HELD_OUT}).to_pylist() for name in drawn["recipes"]
    ]
    losses = [row["value"] for rows in each for row in rows if row["measure"] == "loss" and not row["category"]]
    assert drawn["value"] == pytest.approx(sum(losses) / 3)


def test_only_present_evaluations_of_recipes_trained_from_the_base_model_are_compared(finished):
    assert compared_recipes(finished.context(), "held_out") == ["presel", "random"]
    other = finished.context({"training.lora.rank": 2})
    assert compared_recipes(other, "held_out") == ["presel", "random"], "their checkpoints are those that there are"
    fewer = finished.context({"recipes.presel.train": False})
    assert compared_recipes(fewer, "held_out") == ["random"]
    assert not is_current(fewer, "held_out")
    child = finished.context({"recipes.presel.training": {"continue_from": "random"}})
    assert not takes_part(child, "presel")
    assert compared_recipes(child, "held_out") == ["random"]
    asked = finished.context({"benchmarks.held_out.rows": 3})
    assert compared_recipes(asked, "held_out") == []


def test_a_board_without_recipes_is_empty(copied):
    ctx = copied.context({"benchmarks.held_out.rows": 3})
    assert run(ctx, "held_out").rows == 0
    assert is_current(ctx, "held_out")
