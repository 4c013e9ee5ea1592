"""Fine-tuning, evaluation, leaderboard and ruling as runs of the deployment."""

import json
import re

import dagster as dg
import pytest
from loaded_deployment import deployment_of
from small_project import row, write_small_project

from vsel_platform.errors import NotMaterializedError, VselError
from vsel_platform.evaluation.promotion import MIN_CLUSTERS

DRAWN = {"dataset": "shapes", "method": "random", "budget": {"rows": 8}}
CHAMPION = {"champion": {"recipe": "old", "benchmark": "held_out"}, "continue_from": "old"}
RECIPES = {"old": DRAWN, "new": DRAWN | {"seed": 2, "training": CHAMPION}}


@pytest.fixture(scope="module")
def driven(tmp_path_factory):
    """A deployment whose recipe `new` was driven to the end, and the instance with its runs."""
    directory = tmp_path_factory.mktemp("project")
    file = write_small_project(directory, tmp_path_factory.mktemp("models"), recipes=RECIPES)
    with deployment_of(file), dg.DagsterInstance.ephemeral() as instance:
        from automation import run

        lines = []
        count = run.drive(instance, ["new"], train=True, log=lines.append)
        yield directory, instance, run, lines, count


def metadata(instance, asset, partition):
    """Metadata of an asset's only materialization of a partition."""
    found = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[partition]), limit=5
    ).records
    (record,) = found
    return {name: value.value for name, value in record.asset_materialization.metadata.items()}


def test_every_stage_is_a_run_of_its_job_in_order(driven):
    _, instance, _, lines, count = driven
    assert [line.split(" ")[0] + line.split("]")[0].split("[")[1] for line in lines] == [
        "dataset_manifestshapes",
        "selected_subsetold",
        "selected_subsetnew",
        "method_comparisonshapes",
        "leakageold",
        "leakagenew",
        "finetuned_checkpointold",
        "finetuned_checkpointnew",
        "base_evaluationheld_out",
        "evaluationold:held_out",
        "evaluationnew:held_out",
        "leaderboardheld_out",
        "promotionnew",
    ]
    assert count == len(lines) == len(instance.get_runs())
    jobs = {run.job_name for run in instance.get_runs()}
    assert jobs >= {"train", "evaluate_base", "evaluate", "rank", "promote"}


def test_lines_end_with_what_came_out(driven):
    *_, lines, _ = driven
    told = {line.split(" ")[0] + line.split("]")[0].split("[")[1]: line.partition(" s: ")[2] for line in lines}
    assert re.fullmatch(r"exact match \d+\.\d % \(\d+\.\d to \d+\.\d\)", told["evaluationnew:held_out"])
    assert told["promotionnew"].startswith("old stays: the benchmark has ")
    assert told["leaderboardheld_out"] == told["leakagenew"] == ""


def test_materializations_show_metrics_verdicts_plots_and_the_ruling(driven):
    _, instance, *_ = driven
    assert "exact" in metadata(instance, "base_evaluation", "held_out")["metrics"]
    evaluated = metadata(instance, "evaluation", "new:held_out")
    assert {"metrics", "results by task", "notes", "exact match and loss"} <= set(evaluated)
    assert "trained on 8 rows of the present selection" in evaluated["notes"]
    assert metadata(instance, "finetuned_checkpoint", "new")["continued from"].startswith(
        "finetuned_checkpoint/recipe=old"
    )
    assert "held_out: questions concerned" in metadata(instance, "leakage", "new")
    assert metadata(instance, "leaderboard", "held_out")["recipes"] == 1
    ruling = metadata(instance, "promotion", "new")
    assert ruling["ruling"] == "keep"
    assert f"fewer than {MIN_CLUSTERS}" in ruling["reason"]


def test_a_benchmark_that_stands_in_the_selection_fails_the_check_and_ends_the_drive(driven):
    directory, instance, run, *_ = driven
    file = directory / "held_out.json"
    before = file.read_text()
    try:
        file.write_text(json.dumps([row(i) for i in range(90)]))
        with pytest.raises(VselError, match=r"leakage:old failed .*check no_leakage.*held_out 8 questions") as caught:
            run.drive(instance, ["new"], train=True, log=lambda _: None)
        assert caught.value.exit_code == NotMaterializedError.exit_code
        checks = instance.event_log_storage.get_latest_asset_check_execution_by_key(
            [dg.AssetCheckKey(dg.AssetKey("leakage"), "no_leakage")]
        )
        assert [record.status.value for record in checks.values()] == ["FAILED"]
    finally:
        file.write_text(before)
