import pytest
from report_store import publish_answers, report_context

from vsel_platform.config import Project
from vsel_platform.errors import ConfigError, NotMaterializedError
from vsel_platform.pipeline import evaluation
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.plan import next_steps
from vsel_platform.pipeline.promotion import PAGE, champion_of, inputs, is_current, run

TYPICAL = {"recipe": "typical"}


def rival(directory, **rule) -> Context:
    """A project whose recipe `typical` challenges `drawn`."""
    values = report_context(directory).project.model_dump()
    champion = {"recipe": "drawn", "benchmark": "held_out"} | rule
    values["recipes"]["typical"]["training"] = {"champion": champion}
    return Context(Project.model_validate(values))


def right(ctx, recipe, n):
    """An evaluation of the present state with `n` % right answers."""
    ctx.store.publish_pointer("finetuned_checkpoint", {"recipe": recipe}, rows=12, data_version=recipe)
    results = {"colour": (n, 1.0), "count": (n, 1.0)}
    publish_answers(ctx, recipe, results)
    wanted = evaluation.inputs(ctx, f"{recipe}:held_out").fingerprint
    publish_answers(ctx, recipe, results, input_fingerprint=wanted)


@pytest.mark.parametrize(
    ("candidate", "champion", "rule", "ruling"),
    [
        (80, 40, {}, "promote"),
        (40, 80, {}, "keep"),
        (50, 50, {}, "promote"),
        (50, 51, {}, "promote"),
        (50, 51, {"max_loss": 0}, "keep"),
        (45, 50, {}, "keep"),
        (45, 50, {"margin": 9, "max_loss": 20}, "promote"),
    ],
)
def test_a_recipe_is_promoted_if_it_is_not_worse_and_a_large_loss_is_ruled_out(
    tmp_path, candidate, champion, rule, ruling
):
    ctx = rival(tmp_path, **rule)
    right(ctx, "typical", candidate)
    right(ctx, "drawn", champion)
    result = run(ctx, "typical")
    (row,) = ctx.store.read_partition("promotion", TYPICAL).to_pylist()
    assert row["ruling"] == result.metadata["ruling"] == ruling
    assert (row["champion"], row["benchmark"], row["measure"]) == ("drawn", "held_out", "exact_match")
    assert (row["candidate_value"], row["champion_value"]) == (candidate, champion)
    assert row["difference"] == candidate - champion
    assert row["low"] <= row["difference"] <= row["high"]
    assert (row["margin"], row["n_questions"]) == (rule.get("margin", 0), 200)
    (page,) = ctx.store.require(PAGE, TYPICAL).files
    assert row["reason"].split(".")[0] in ctx.store.files.read(page.path).decode()


def test_a_ruling_is_made_again_when_an_evaluation_or_the_rule_changes(tmp_path):
    ctx = rival(tmp_path)
    right(ctx, "typical", 80)
    with pytest.raises(NotMaterializedError, match=r"recipe drawn, benchmark held_out .*run `vsel run drawn --train`"):
        run(ctx, "typical")
    right(ctx, "drawn", 40)
    assert not is_current(ctx, "typical")
    run(ctx, "typical")
    assert is_current(ctx, "typical")
    assert not is_current(rival(tmp_path, margin=1), "typical")
    right(ctx, "drawn", 41)
    assert not is_current(ctx, "typical")


def test_evaluations_of_different_states_are_not_compared(tmp_path):
    ctx = rival(tmp_path)
    right(ctx, "typical", 80)
    right(ctx, "drawn", 40)
    values = ctx.project.model_dump()
    for change in ({"compat": "robust"}, {"rows": 7}):
        values["benchmarks"]["held_out"] |= change
        with pytest.raises(NotMaterializedError, match="recipe typical, benchmark held_out"):
            inputs(Context(Project.model_validate(values)), "typical")
    ctx.store.publish_pointer("finetuned_checkpoint", {"recipe": "drawn"}, rows=12, data_version="trained again")
    with pytest.raises(NotMaterializedError, match="recipe drawn, benchmark held_out"):
        run(ctx, "typical")


def test_a_recipe_without_a_champion_has_no_ruling(tmp_path):
    with pytest.raises(ConfigError, match=r"recipe 'drawn' names no champion; give recipes\.drawn\.training\.champion"):
        champion_of(rival(tmp_path), "drawn")


def test_a_drive_trains_both_and_rules_and_a_benchmark_of_six_questions_promotes_nobody(fresh):
    champion = {"champion": {"recipe": "champion", "benchmark": "held_out"}}
    drawn = {"dataset": "shapes", "method": "random", "budget": {"rows": 8}}
    changes = {"recipes": {"champion": drawn, "new": drawn | {"seed": 2, "training": champion}}}
    results = fresh.drive(["new"], changes, train=True)
    trained = [result.partition["recipe"] for result in results if result.stage == "finetuned_checkpoint"]
    assert trained == ["champion", "new"]
    assert results[-1].stage == "promotion"
    ctx = fresh.context(changes)
    (row,) = ctx.store.read_partition("promotion", {"recipe": "new"}).to_pylist()
    assert row["ruling"] == "keep"
    assert "6 clusters" in row["reason"]
    assert next_steps(ctx, ["new"], train=True) == []
