import json
import shutil
from collections import defaultdict

import pytest
from small_project import row, small_rows, text_row

from vsel_platform.errors import DataError, NotMaterializedError
from vsel_platform.pipeline.cost_lines import Estimate, Line
from vsel_platform.pipeline.estimate import estimate

RECIPES = ["presel", "random"]
STAGES = [
    "dataset_manifest",
    "image_embeddings",
    "reference_subset",
    "reference_model",
    "losses",
    "presel_scores",
    "selected_subset",
    "method_comparison",
    "leakage",
    "finetuned_checkpoint",
    "base_evaluation",
    "evaluation",
    "leaderboard",
]
# Stages from the named one to the last.
FROM = {stage: STAGES[i:] for i, stage in enumerate(STAGES)}
BASE_MODEL = "base_evaluation"
CHECKPOINTS = ["finetuned_checkpoint", "evaluation", "leaderboard"]


def without_base(stages):
    """Stages of a change that leaves the base model alone."""
    return [stage for stage in stages if stage != BASE_MODEL]


CHANGES = {
    "nothing": ({}, []),
    "budget": ({"recipes.presel.budget": {"rows": 40}}, without_base(FROM["selected_subset"])),
    "neighbours": ({"recipes.presel.options": {"n_neighbours": 3}}, without_base(FROM["presel_scores"])),
    "encoder": ({"image_encoder.dtype": "bfloat16"}, ["image_embeddings", *without_base(FROM["presel_scores"])]),
    "reference rows": ({"reference.fraction": 0.5}, without_base(FROM["reference_subset"])),
    "reference training": ({"reference.lora.rank": 2}, without_base(FROM["reference_model"])),
    "model": ({"vlm.max_tokens": 250}, FROM["reference_model"]),
    "training": ({"training.lora": {"rank": 2, "batch_rows": 8}}, CHECKPOINTS),
    "questions": ({"benchmarks.held_out.rows": 3}, ["leakage", "base_evaluation", "evaluation", "leaderboard"]),
    "how answers are read": (
        {"benchmarks.held_out.compat": "robust"},
        ["base_evaluation", "evaluation", "leaderboard"],
    ),
    "leakage": ({"evaluation.leakage.words": 9}, ["leakage"]),
    "champion": (
        {"recipes.presel.training": {"champion": {"recipe": "random", "benchmark": "held_out"}}},
        ["promotion"],
    ),
    "parent": ({"recipes.presel.training": {"continue_from": "random"}}, CHECKPOINTS),
}


def work_done(results):
    """Rows that were really worked on, by stage, as the estimate counts them; stages that had nothing to do are out."""
    work = defaultdict(int)
    for result in results:
        rows = {
            "dataset_manifest": result.metadata.get("rows"),
            "image_embeddings": result.computed,
            "losses": result.computed,
            "reference_subset": result.metadata.get("rows_of_dataset"),
            "leakage": result.computed,
            "base_evaluation": result.computed,
            "evaluation": result.computed,
            "leaderboard": result.metadata.get("recipes"),
        }
        work[result.stage] += rows.get(result.stage, result.rows)
    return {stage: rows for stage, rows in work.items() if rows}


def by_stage(found):
    return {line.stage: line for line in found.lines}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_setting_costs_what_the_drive_then_does(copied, change):
    changes, stages = CHANGES[change]
    lines = by_stage(estimate(copied.context(changes), RECIPES, train=True))
    done = work_done(copied.drive(RECIPES, changes, train=True))
    assert list(lines) == stages
    # A stage that finds the same as before ends what it had made stale: less is done than was told, never more.
    assert [line.exact for line in lines.values()] == [stage == stages[0] for stage in stages]
    ran = [stage for stage in stages if lines[stage].rows]  # answers that are read anew are no work
    assert list(done)[:1] == [stage for stage in ran[:1] if lines[stage].exact]
    assert set(done) <= set(ran)
    for stage, rows in done.items():
        if lines[stage].exact or stage in ("base_evaluation", "evaluation", "leaderboard"):
            assert lines[stage].rows == rows, stage
        assert rows <= 1.2 * lines[stage].rows, stage


def test_an_empty_store_is_told_in_full_and_as_an_estimate(fresh):
    lines = by_stage(estimate(fresh.context(), RECIPES, train=True))
    done = work_done(fresh.drive(RECIPES, train=True))
    assert list(lines) == STAGES
    assert not any(line.exact for line in lines.values())
    assert lines["dataset_manifest"].rows == done["dataset_manifest"] == 99
    assert lines["dataset_manifest"].n_bytes == (fresh.directory / "rows.json").stat().st_size
    for stage in STAGES:
        assert 0.8 * done[stage] <= lines[stage].rows <= 1.3 * done[stage], stage


def test_seconds_are_known_for_every_stage_that_ran_in_the_store(finished, fresh):
    unknown = estimate(fresh.context(), RECIPES, train=True)
    assert unknown.seconds is None
    shutil.copytree(finished.directory / "store" / "timings", fresh.directory / "store" / "timings")
    known = estimate(fresh.context(), RECIPES, train=True)
    assert all(line.seconds is not None and line.seconds > 0 for line in known.lines)
    assert known.seconds == pytest.approx(sum(line.seconds for line in known.lines))
    other = by_stage(estimate(fresh.context({"vlm.max_tokens": 250}), RECIPES, train=True))
    assert {stage for stage, line in other.items() if line.seconds is None} == {
        "reference_model",
        "losses",
        "finetuned_checkpoint",
        "base_evaluation",
        "evaluation",
    }


def test_new_rows_cost_their_own_images_and_few_losses(copied):
    copied.write([*small_rows(), row(300, task="name"), row(301, task="colour")])
    lines = by_stage(estimate(copied.context(), RECIPES, train=False))
    done = work_done(copied.drive(RECIPES))
    assert lines["dataset_manifest"].rows == done["dataset_manifest"] == 101
    # Rows that were repeated or refused the last time are not taken for new ones.
    assert done["image_embeddings"] == lines["image_embeddings"].rows == 2
    assert not lines["image_embeddings"].exact
    assert "reference_model" not in lines
    assert "reference_model" not in done
    assert lines["selected_subset"].partitions == 2


@pytest.mark.parametrize("rows", [40, 200])
def test_a_dataset_of_very_different_size_gets_a_new_reference_model(copied, rows):
    copied.write(small_rows(rows))
    line = by_stage(estimate(copied.context(), RECIPES, train=False))["reference_model"]
    assert line.partitions == 1
    assert line.rows == pytest.approx(0.2 * (rows + 9), abs=1)
    assert "reference_model" in work_done(copied.drive(RECIPES))


def test_rows_of_a_long_source_are_counted_from_its_first_part(fresh):
    fresh.write([text_row(10_000 + i) for i in range(12_000)])
    line = by_stage(estimate(fresh.context(), ["random"], train=False))["dataset_manifest"]
    assert line.n_bytes > 2 << 20
    assert line.rows == pytest.approx(12_000, rel=0.03)
    assert not line.exact


def test_each_recipe_costs_only_what_it_needs(fresh):
    assert list(by_stage(estimate(fresh.context(), ["random"], train=False))) == ["dataset_manifest", "selected_subset"]
    untrained = fresh.context({"recipes.random.train": False})
    assert estimate(untrained, ["random"], train=True).lines == estimate(untrained, ["random"], train=False).lines
    no_benchmark = by_stage(estimate(fresh.context({"benchmarks": {}}), ["random"], train=True))
    assert list(no_benchmark) == ["dataset_manifest", "selected_subset", "finetuned_checkpoint"]


def test_model_passes_count_both_conditions_and_every_epoch(fresh):
    lines = by_stage(estimate(fresh.context({"training.lora.epochs": 2.5}), RECIPES, train=True))
    assert lines["losses"].model_passes == 2 * lines["losses"].rows
    assert lines["finetuned_checkpoint"].model_passes == round(2.5 * lines["finetuned_checkpoint"].rows)
    assert lines["presel_scores"].model_passes == lines["selected_subset"].model_passes == 0


def test_a_dataset_that_failed_its_checks_is_named_instead_of_counted(fresh):
    changes = {"datasets.shapes.max_quarantine_rate": 0.01}
    with pytest.raises(NotMaterializedError):
        fresh.drive(["random"], changes)
    with pytest.raises(NotMaterializedError, match="quarantine_rate"):
        estimate(fresh.context(changes), RECIPES, train=False)
    assert by_stage(estimate(fresh.context(), RECIPES, train=False))["dataset_manifest"].rows == 99


def test_what_a_training_goes_on_from_or_is_compared_with_is_counted_too(fresh):
    champion = {"champion": {"recipe": "random", "benchmark": "held_out"}}
    for own in ({"continue_from": "random"}, champion):
        context = fresh.context({"recipes.presel.training": own})
        alone = by_stage(estimate(context, ["presel"], train=True))
        assert alone["finetuned_checkpoint"].partitions == alone["evaluation"].partitions == 2
        assert list(alone) == list(by_stage(estimate(context, RECIPES, train=True)))
        assert by_stage(estimate(context, ["presel"], train=False))["selected_subset"].partitions == 1
    assert alone["promotion"].rows == 1
    assert by_stage(estimate(context, ["random"], train=True)).get("promotion") is None


def test_a_recipe_that_goes_on_from_a_changed_one_is_trained_again(finished):
    child = {"recipes.presel.training": {"continue_from": "random"}}
    changed = finished.context(child | {"recipes.random.seed": 1})
    assert by_stage(estimate(changed, ["presel"], train=True))["finetuned_checkpoint"].partitions == 2


@pytest.mark.parametrize("text", [None, "[", "[]"])
def test_a_benchmark_that_cannot_be_read_is_an_error(fresh, text):
    file = fresh.directory / "questions.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(DataError, match=r"questions\.json"):
        estimate(fresh.context({"benchmarks.held_out.questions": str(file)}), RECIPES, train=True)


def test_a_benchmark_whose_images_are_elsewhere_is_an_error(copied):
    moved = copied.context({"benchmarks.held_out.image_root": "nowhere"})
    with pytest.raises(DataError, match=r"held_out\.image_root: none of 6 images is there \(the first is .*nowhere"):
        estimate(moved, RECIPES, train=True)
    assert estimate(moved, RECIPES, train=False).lines == []


def test_self_questioning_is_counted_with_all_texts_of_the_longest_length(copied):
    asking = {"questions": 2, "question_tokens": 5, "answer_tokens": 4}
    changes = {"benchmarks.held_out.self_questioning": asking, "benchmarks.held_out.max_new_tokens": 4}
    lines = by_stage(estimate(copied.context(changes), RECIPES, train=True))
    line = lines["base_evaluation"]
    assert (line.rows, line.model_passes) == (6, 6 * (1 + 4 + 1 + 7))  # 26 tokens are 7 answers of 4
    assert "self-questioning is counted as if" in estimate(copied.context(changes), RECIPES, train=True).to_text()
    assert lines["evaluation"].model_passes == 2 * line.model_passes
    asked = copied.drive(RECIPES, changes, train=True)
    timed = [f.read_text() for f in (copied.directory / "store" / "timings" / "base_evaluation").iterdir()]
    assert any(json.loads(text)["units"] == line.model_passes for text in timed)
    (trace,) = (found for found in asked if found.stage == "base_evaluation")
    assert trace.metadata["tokens_per_answer"] + trace.metadata["plain_tokens_per_answer"] <= 2 * 26


def test_a_missing_source_is_an_error(fresh):
    (fresh.directory / "rows.json").unlink()
    with pytest.raises(DataError, match=r"rows\.json"):
        estimate(fresh.context(), RECIPES, train=False)


def test_an_estimate_writes_nothing_into_the_store(fresh):
    estimate(fresh.context(), RECIPES, train=True)
    assert not (fresh.directory / "store").exists()


def test_text_says_what_is_estimated_and_what_is_unknown(ctx):
    assert "everything is current" in estimate(ctx, RECIPES, train=True).to_text()
    exact = Estimate(["a"], [Line("losses", 1, 1200, 2400, None, 30.0, True)])
    assert "1,200" in exact.to_text()
    assert "30.0 s" in exact.to_text()
    assert "~" not in exact.to_text()
    assert "unknown" not in exact.to_text()
    rough = Estimate(["a"], [Line("losses", 1, 1200, 2400, None, None, False)])
    assert "~1,200" in rough.to_text()
    assert "times are known after the first run in this store" in rough.to_text()
    assert "unknown: " not in rough.to_text()
    partly = Estimate(["a"], [*exact.lines, *rough.lines])
    assert "unknown: " in partly.to_text()
    assert "after the first run" not in partly.to_text()
    assert rough.to_dict()["lines"][0]["rows"] == 1200


@pytest.mark.parametrize(("seconds", "text"), [(119, "119.0 s"), (121, "2 min"), (7100, "118 min"), (7300, "2.0 h")])
def test_durations_are_written_in_a_fitting_unit(seconds, text):
    assert text in Estimate(["a"], [Line("losses", 1, 1, 2, None, seconds, True)]).to_text()


def test_checkpoints_that_a_reselection_left_behind_are_told(copied):
    smaller = {"recipes.presel.budget": {"rows": 20}}
    assert estimate(copied.context(), RECIPES, train=False).older_checkpoints == 0
    copied.drive(RECIPES, smaller)
    left = estimate(copied.context(smaller), RECIPES, train=False)
    assert left.lines == []
    assert left.to_text().endswith("nothing would be computed\n1 checkpoint is older than its selection (--train)")
    told = estimate(copied.context(smaller), RECIPES, train=True)
    assert told.older_checkpoints == 0
    assert by_stage(told)["finetuned_checkpoint"].partitions == 1
