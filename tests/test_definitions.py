"""The deployment's table of contents: keys, partitions, dependencies, and what loading it costs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SNAPSHOT = Path(__file__).parent / "definitions_snapshot.json"
HEAVY = ("torch", "transformers", "peft", "lancedb", "sklearn", "faiss", "pandas", "matplotlib")

PROBE = """
import json, sys, time
start = time.perf_counter()
from definitions import defs
seconds = time.perf_counter() - start
graph = defs.resolve_asset_graph()
specs = {}
for key in sorted(graph.get_all_asset_keys(), key=str):
    node = graph.get(key)
    specs[key.to_user_string()] = {
        "partitions": type(node.partitions_def).__name__ + ":" + str(
            getattr(node.partitions_def, "name", None) or sorted(node.partitions_def.get_partition_keys())
        ),
        "deps": sorted(parent.to_user_string() for parent in node.parent_keys),
        "group": node.group_name,
        "kinds": sorted(node.kinds),
        "described": len(node.description or "") > 60,
        "checks": sorted(check.name for check in node.check_keys),
    }
heavy = [name for name in %r if name in sys.modules]
jobs = {job.name: bool(defs.resolve_job_def(job.name).description) for job in defs.jobs}
priority = {node.name: int(node.tags.get("dagster/priority", "0"))
            for node in defs.resolve_job_def("signals").all_node_defs}
sensors = sorted(s.name for s in defs.sensors)
schedules = sorted(s.name for s in defs.schedules)
print(json.dumps({"seconds": seconds, "heavy": heavy,
                  "described_jobs": jobs, "priority": priority,
                  "snapshot": {"assets": specs, "jobs": sorted(jobs), "sensors": sensors, "schedules": schedules}}))
"""


def load(directory: Path, recipes: str, benchmarks: str = "{}") -> dict:
    (directory / "vsel.yaml").write_text(
        f"name: p\ndatasets: {{a: {{source: a.json}}, b: {{source: b.json}}}}\nrecipes: {recipes}\n"
        f"benchmarks: {benchmarks}\n"
    )
    environment = os.environ | {
        "VSEL_PROJECT": str(directory / "vsel.yaml"),
        "PYTHONPATH": str(ROOT),
        "DAGSTER_HOME": str(directory),
    }
    command = [sys.executable, "-W", "ignore", "-c", PROBE % (HEAVY,)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    recipes = "{presel_a: {dataset: a}, random_b: {dataset: b, method: random, train: false}}"
    return load(tmp_path_factory.mktemp("project"), recipes)


def test_loading_imports_no_heavy_library(loaded):
    assert loaded["heavy"] == []


def test_asset_graph_is_the_recorded_one(loaded):
    """Keys, partitions and dependencies are what users' stores and runs refer to: a change must be deliberate."""
    if os.environ.get("UPDATE_SNAPSHOT"):
        SNAPSHOT.write_text(json.dumps(loaded["snapshot"], indent=2, sort_keys=True) + "\n")
    recorded = json.loads(SNAPSHOT.read_text())
    assert loaded["snapshot"] == recorded, "deliberate? UPDATE_SNAPSHOT=1 pytest tests/test_definitions.py"


def test_every_asset_has_group_kinds_and_a_description(loaded):
    for name, spec in loaded["snapshot"]["assets"].items():
        assert spec["group"] != "default", name
        assert spec["kinds"], name
        assert spec["described"], name


def test_only_recipes_that_train_are_partitions_of_the_training(loaded, tmp_path):
    """A recipe with `train: false` would count as missing for ever."""
    assets = loaded["snapshot"]["assets"]
    assert assets["selected_subset"]["partitions"] == "StaticPartitionsDefinition:['presel_a', 'random_b']"
    assert assets["finetuned_checkpoint"]["partitions"] == "StaticPartitionsDefinition:['presel_a']"
    untrained = load(tmp_path, "{presel_a: {dataset: a, train: false}}")["snapshot"]["assets"]
    assert untrained["evaluation"]["partitions"] == "StaticPartitionsDefinition:['none']"


def test_every_trained_recipe_is_evaluated_on_every_benchmark_and_challengers_are_ruled_about(tmp_path):
    """Each evaluation needs its own recipe's checkpoint, each ruling the evaluations of both sides."""
    recipes = (
        "{old: {dataset: a}, drawn: {dataset: a, train: false}, "
        "new: {dataset: b, training: {champion: {recipe: old, benchmark: vqa}, continue_from: old}}}"
    )
    benchmarks = "{vqa: {format: rows, questions: q.json}, own: {format: jsonl, questions: q.jsonl}}"
    assets = load(tmp_path, recipes, benchmarks)["snapshot"]["assets"]
    partitions = {name: spec["partitions"].removeprefix("StaticPartitionsDefinition:") for name, spec in assets.items()}
    assert partitions["evaluation"] == "['new:own', 'new:vqa', 'old:own', 'old:vqa']"
    assert partitions["base_evaluation"] == partitions["leaderboard"] == "['own', 'vqa']"
    assert partitions["leakage"] == partitions["finetuned_checkpoint"] == "['new', 'old']"
    assert partitions["promotion"] == "['new']"


def test_losses_run_before_the_signals_that_their_pass_gives_besides(loaded):
    priority = loaded["priority"]
    assert priority["base_losses"] > max(priority[name] for name in ("hidden_states", "vision_representations"))


def test_every_job_has_a_description(loaded):
    assert all(loaded["described_jobs"].values()), loaded["described_jobs"]
