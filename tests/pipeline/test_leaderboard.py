import pytest
from report_store import publish_answers, report_context

from vsel_platform.config import Project
from vsel_platform.pipeline import evaluation
from vsel_platform.pipeline.asked import ASKED, asked_under
from vsel_platform.pipeline.benchmarks import read_benchmark
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.leaderboard import (
    PAGE,
    boards_of,
    compared_recipes,
    earlier_recipes,
    is_current,
    label_of,
    run,
    takes_part,
)
from vsel_platform.pipeline.selection_cost import selection_seconds
from vsel_platform.reports.html import figures

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
        ({"method": "random", "mode": "released", "text_policy": "none"}, "random"),
    ],
)
def test_a_label_is_what_sets_a_recipe_apart_but_for_its_seeds_and_budget(finished, settings, label):
    ctx = finished.context({"recipes.one": {"dataset": "shapes"} | settings})
    assert label_of(ctx.project.recipe("one")) == label


def compared(directory, recipes, right, rows=12) -> Context:
    """A project whose recipes were evaluated: of 100 answers each, `right[name]` are right.

    `rows`: selected of the 48 distinct ones of every dataset.
    """
    values = report_context(directory).project.model_dump() | {"recipes": recipes}
    ctx = Context(Project.model_validate(values))
    for dataset in ctx.project.datasets:
        ctx.store.publish_pointer(
            "manifest", {"dataset": dataset}, rows=50, data_version="1", metadata={"duplicates": 2}
        )
    for name in recipes:
        for table in ("selected_subset", "finetuned_checkpoint"):
            ctx.store.publish_pointer(table, {"recipe": name}, rows=rows, data_version=name)
        results = {"colour": (right[name], 1.0)}
        publish_answers(ctx, name, results)  # the questions, too
        wanted = evaluation.inputs(ctx, f"{name}:held_out").fingerprint
        asked = {ASKED: asked_under(ctx, "held_out", evaluation.CODE)}
        publish_answers(ctx, name, results, input_fingerprint=wanted, metadata=asked)
    return ctx


def drawn(dataset, seed, **more):
    return {"dataset": dataset, "method": "random", "budget": {"percent": 25}, "seed": seed} | more


def test_every_dataset_is_judged_against_its_own_random_runs(tmp_path):
    recipes, right = {}, {}
    for dataset, level in (("shapes", 40), ("spare", 70)):
        recipes |= {f"{dataset}_{seed}": drawn(dataset, seed) for seed in range(5)}
        recipes[f"{dataset}_typical"] = {"dataset": dataset, "budget": {"percent": 25}}
        right |= {f"{dataset}_{seed}": level for seed in range(5)} | {f"{dataset}_typical": 68}
    ctx = compared(tmp_path, recipes, right)
    result = run(ctx, "held_out")
    assert result.metadata == {"recipes": 12}
    rows = ctx.store.read_partition("leaderboard", HELD_OUT).to_pylist()
    found = {(row["dataset"], row["label"]): row for row in rows if row["measure"] == "exact_match"}
    assert {key: row["verdict"] for key, row in found.items()} == {
        ("shapes", "presel"): "better than random",
        ("shapes", "random"): "random",
        ("spare", "presel"): "not distinguishable from random",
        ("spare", "random"): "random",
    }
    assert found["shapes", "presel"]["difference"] == pytest.approx(28)
    assert found["spare", "presel"]["difference"] == pytest.approx(-2)
    pages = {file.path.rsplit("/", 1)[-1]: ctx.store.files.read(file.path).decode() for file in result_files(ctx)}
    names = [plot.name for name, page in pages.items() if name.endswith(".html") for plot in figures(page)]
    assert len(names) == len({*names}) == 4, "the UI shows the figures of all pages by their names"
    assert all(f">Dataset {name}</h2>" in pages["loss.html"] for name in ("shapes", "spare"))
    assert pages["loss.md"].count("## Dataset") == 2


def result_files(ctx):
    return ctx.store.require(PAGE, HELD_OUT).files


@pytest.mark.parametrize(
    "twin",
    [drawn("shapes", 1, rounds=1), drawn("shapes", 1) | {"budget": {"rows": 12}}],
)
def test_of_two_recipes_with_one_selection_the_first_counts_and_both_are_named(tmp_path, twin):
    recipes = {"one": drawn("shapes", 1), "two": drawn("shapes", 2), "again": twin}
    ctx = compared(tmp_path, recipes, {"one": 40, "two": 50, "again": 60})
    run(ctx, "held_out")
    (row,) = (r for r in ctx.store.read_partition("leaderboard", HELD_OUT).to_pylist() if r["measure"] == "exact_match")
    assert (row["recipes"], row["value"]) == (["again", "two"], 55)
    for board in boards_of(ctx, read_benchmark(ctx, "held_out"), list(recipes)):
        assert board.notes[0].startswith("one has the method, budget and seed of again and is left out")


def test_an_earlier_evaluation_is_shown_only_if_it_was_asked_and_judged_as_the_present_ones(tmp_path):
    ctx = compared(tmp_path, {"one": drawn("shapes", 1), "two": drawn("shapes", 2)}, {"one": 40, "two": 50})
    assert earlier_recipes(ctx, "held_out") == []
    ctx.store.publish_pointer("finetuned_checkpoint", {"recipe": "two"}, rows=12, data_version="trained again")
    assert compared_recipes(ctx, "held_out") == ["one"]
    assert earlier_recipes(ctx, "held_out") == ["two"]
    values = ctx.project.model_dump()
    for section, change in (("vlm", {"max_tokens": 99}), ("benchmarks", {"compat": "robust"})):
        own = values[section]["held_out"] if section == "benchmarks" else values[section]
        changed = own | change if section == "vlm" else {"held_out": own | change}
        other = Context(Project.model_validate(values | {section: changed}))
        assert compared_recipes(other, "held_out") == earlier_recipes(other, "held_out") == []
    publish_answers(ctx, "one", {"colour": (40, 1.0), "count": (40, 1.0)})  # the file has another task now
    assert earlier_recipes(ctx, "held_out") == []


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
