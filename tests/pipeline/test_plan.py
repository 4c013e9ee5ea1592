import os
import shutil

import pytest
from small_project import row, small_rows

from vsel_platform.pipeline.lookup import dataset_shards
from vsel_platform.pipeline.plan import next_steps, with_trained
from vsel_platform.storage.pointers import partition_key

RECIPES = ["presel", "random"]
# Each stage and a table whose pointer it publishes.
POINTERS = [
    ("dataset_manifest", "manifest"),
    ("image_embeddings", "image_embeddings"),
    ("reference_subset", "reference_subset"),
    ("reference_model", "reference_model"),
    ("losses", "losses"),
    ("presel_scores", "presel_scores"),
    ("presel_scores", "presel_tasks"),
    ("selected_subset", "selected_subset"),
    ("selected_subset", "selected_tasks"),
    ("selected_subset", "selection"),
    ("method_comparison", "compared_recipes"),
    ("method_comparison", "compared_pairs"),
    ("method_comparison", "comparison"),
    ("leakage", "leakage"),
    ("finetuned_checkpoint", "finetuned_checkpoint"),
    ("base_evaluation", "evaluation"),
    ("evaluation", "evaluation"),
    ("leaderboard", "leaderboard"),
]
# Setting -> (two values that differ from the project's, the stage that each makes stale, its keys).
SETTINGS = {
    "datasets.shapes.task": ({"column": "kind"}, {"column": "other"}, "dataset_manifest", ["shapes"]),
    "datasets.shapes.max_quarantine_rate": (0.01, 0.02, "dataset_manifest", ["shapes"]),
    "image_encoder.dtype": ("bfloat16", "float16", "image_embeddings", None),
    "reference.fraction": (0.3, 0.4, "reference_subset", ["shapes"]),
    "reference.seed": (1, 2, "reference_subset", ["shapes"]),
    "reference.lora.rank": (2, 8, "reference_model", ["shapes"]),
    "vlm.max_tokens": (250, 240, "reference_model", ["shapes"]),
    "recipes.presel.options": ({"n_neighbours": 3}, {"n_neighbours": 4}, "presel_scores", ["shapes"]),
    "recipes.presel.mode": ("released", "released", "presel_scores", ["shapes"]),
    "recipes.presel.budget": ({"rows": 31}, {"rows": 32}, "selected_subset", ["presel"]),
    "recipes.random.seed": (1, 2, "selected_subset", ["random"]),
    "training.lora.learning_rate": (0.1, 0.2, "finetuned_checkpoint", ["presel", "random"]),
    "training.lora.seed": (1, 2, "finetuned_checkpoint", ["presel", "random"]),
    "recipes.presel.training": ({"seed": 1}, {"seed": 2}, "finetuned_checkpoint", ["presel"]),
    "evaluation.leakage.words": (12, 14, "leakage", ["presel", "random"]),
    "evaluation.resamples": (100, 101, "base_evaluation", ["held_out"]),
    "benchmarks.held_out.rows": (3, 4, "leakage", ["presel", "random"]),
    "benchmarks.held_out.compat": ("robust", "llava", "base_evaluation", ["held_out"]),
    "benchmarks.held_out.max_new_tokens": (3, 4, "leakage", ["presel", "random"]),
}


def steps(project, changes=None, recipes=RECIPES, *, train=True):
    return next_steps(project.context(changes), recipes, train=train)


def stale(project, changes=None, **options):
    """(asset, keys) of the stage that comes next, None if there is none."""
    found = steps(project, changes, **options)
    assert len({step.asset for step in found}) <= 1
    return (found[0].asset, [step.key for step in found]) if found else None


def test_nothing_is_left_to_do_after_a_drive(finished):
    assert stale(finished) is None


def test_an_empty_store_begins_with_the_dataset_and_goes_on_stage_by_stage(fresh):
    assert stale(fresh) == ("dataset_manifest", ["shapes"])
    ran = [result.stage for result in fresh.drive(RECIPES, train=True)]
    assert list(dict.fromkeys(ran)) == list(dict.fromkeys(stage for stage, _ in POINTERS))


@pytest.mark.parametrize(("stage", "table"), POINTERS)
def test_a_deleted_pointer_is_made_again_and_nothing_else_is_kept_waiting(copied, stage, table):
    store = copied.context().store
    recipe = "base" if stage == "base_evaluation" else "presel"
    pointer = next(p for p in store.pointers(table) if p.partition.get("recipe", recipe) == recipe)
    store.files.delete(f"tables/{partition_key(table, pointer.partition)}/pointer.json")
    names = ("shard", "recipe", "dataset", "benchmark")
    key = {"base_evaluation": "held_out", "evaluation": "presel:held_out"}.get(stage)
    assert stale(copied) == (stage, [key or next(pointer.partition[n] for n in names if n in pointer.partition)])
    copied.drive(RECIPES, train=True)
    assert stale(copied) is None
    assert store.require(table, pointer.partition).data_version == pointer.data_version


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_changed_setting_makes_its_stage_stale_and_the_old_value_current_again(finished, setting):
    value, _, stage, keys = SETTINGS[setting]
    asset, found = stale(finished, {setting: value})
    assert asset == stage
    assert found == (keys or dataset_shards(finished.context(), "shapes"))
    assert stale(finished) is None


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("image_encoder.batch_size", 3),
        ("image_encoder.decode_workers", 1),
        ("vlm.batch_tokens", 99),
        ("compute.threads", 1),
        ("reference.refresh_growth", 0.5),
        ("training.runtime", {"checkpoint_minutes": 0}),
        ("automation.max_attempts", 1),
        ("name", "other"),
    ],
)
def test_settings_that_change_no_result_make_nothing_stale(finished, setting, value):
    assert stale(finished, {setting: value}) is None


def test_images_of_a_benchmark_may_be_moved_and_are_missed_where_they_are_not(finished, tmp_path):
    shutil.copytree(finished.pictures / "images", tmp_path / "moved")
    moved = {"benchmarks.held_out.image_root": str(tmp_path / "moved")}
    assert stale(finished, moved) is None
    (tmp_path / "moved" / row(200)["image"]).write_bytes(b"another picture")
    assert stale(finished, moved) == ("leakage", RECIPES)
    assert stale(finished, {"benchmarks.held_out.image_root": str(tmp_path / "nowhere")}) == ("leakage", RECIPES)


def test_a_changed_source_is_seen_and_its_old_content_is_current_again(copied):
    rows = small_rows()
    copied.write([*rows, row(300)])
    assert stale(copied) == ("dataset_manifest", ["shapes"])
    copied.write(rows)
    assert stale(copied) is None


def test_a_source_that_was_only_touched_is_current(copied):
    os.utime(copied.directory / "rows.json", (1, 1))
    assert stale(copied) is None


def test_later_stages_are_asked_for_when_the_earlier_ones_are_current(copied):
    changes = {"training.lora.rank": 2, "recipes.presel.budget": {"rows": 31}, "reference.seed": 1}
    seen = [result.stage for result in copied.drive(RECIPES, changes, train=True)]
    assert seen[0] == "reference_subset"
    assert seen.index("selected_subset") < seen.index("finetuned_checkpoint")
    assert stale(copied, changes) is None


def test_only_recipes_that_are_asked_for_count(fresh, finished):
    assert stale(finished, {"recipes.presel.budget": {"rows": 31}}, recipes=["random"]) is None
    assert steps(finished, recipes=[]) == []
    ran = {result.stage for result in fresh.drive(["random"])}
    assert ran == {"dataset_manifest", "selected_subset"}


def test_training_is_asked_for_only_on_request_and_where_the_recipe_wants_it(finished):
    changes = {"training.lora.rank": 2}
    assert stale(finished, changes, train=False) is None
    assert stale(finished, changes | {"recipes.presel.train": False}) == ("finetuned_checkpoint", ["random"])
    assert stale(finished, {"benchmarks": {}}) is None


def test_a_recipe_that_is_not_trained_any_more_leaves_the_leaderboard_and_nothing_else(finished):
    assert stale(finished, {"recipes.presel.train": False}) == ("leaderboard", ["held_out"])
    assert stale(finished, {"recipes.presel.train": False}, train=False) is None


def test_what_a_recipe_goes_on_from_or_is_compared_with_counts_besides(finished):
    project = finished.context({"recipes.presel.training": {"continue_from": "random"}}).project
    assert with_trained(project, ["presel"]) == ["random", "presel"]
    champion = {"recipe": "random", "benchmark": "held_out"}
    rival = finished.context({"recipes.presel.training": {"champion": champion}})
    assert with_trained(rival.project, ["presel"]) == ["random", "presel"]
    assert with_trained(rival.project, ["random"]) == ["random"]
    assert [(step.asset, step.key) for step in next_steps(rival, ["presel"], train=True)] == [("promotion", "presel")]
    assert next_steps(rival, ["random"], train=True) == []
    untrained = finished.context({"recipes.presel.train": False, "recipes.presel.training": {"champion": champion}})
    assert with_trained(untrained.project, ["presel"]) == ["presel"]


def test_a_training_waits_for_the_checkpoint_that_it_goes_on_from(finished):
    child = {"recipes.presel.training": {"continue_from": "random"}}
    assert stale(finished, child, recipes=["presel"]) == ("finetuned_checkpoint", ["presel"])
    both = child | {"training.lora.rank": 2}
    assert stale(finished, both, recipes=["presel"]) == ("finetuned_checkpoint", ["random"])


@pytest.mark.parametrize("setting", SETTINGS)
def test_another_value_of_a_setting_wants_another_state_of_the_same_target(finished, setting):
    """A target is given up after too many failures for what it wants: a mended setting has to count as new."""
    one, two, *_ = SETTINGS[setting]
    first, again, second = (steps(finished, {setting: value}) for value in (one, one, two))
    assert first == again
    assert [step.target for step in first] == [step.target for step in second]
    assert all((a.want == b.want) == (one == two) for a, b in zip(first, second, strict=True))
