"""The whole spine in one process: computed once, resumed, replayed, reselected."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_project import project_values, row, small_project, small_rows, write_rows, write_small_project

from vsel_platform.config import load_project
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.drive import drive
from vsel_platform.pipeline.plan import next_steps
from vsel_platform.pipeline.verify import replay_manifest, verify_file

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, models):
    """A project that was driven to the end once; tests that change it copy it."""
    directory = tmp_path_factory.mktemp("finished")
    project = small_project(directory, models)
    results = drive(Context(project), list(project.recipes), train=True, log=lambda _: None)
    return directory, project, results


def copied(finished, tmp_path, models):
    directory = tmp_path / "copy"
    shutil.copytree(finished[0], directory)
    import yaml

    (directory / "vsel.yaml").write_text(yaml.safe_dump(project_values(directory, models)))
    return directory, load_project(directory / "vsel.yaml")


def selected(ctx, recipe):
    return ctx.store.read_partition("selected_subset", {"recipe": recipe}).to_pylist()


def test_every_stage_publishes_and_nothing_is_stale_afterwards(finished):
    _, project, results = finished
    ctx = Context(project)
    assert [r.stage for r in results if r.stage == "image_embeddings"]
    assert next_steps(ctx, list(project.recipes), train=True) == []
    assert len(selected(ctx, "presel")) == 30
    assert len(selected(ctx, "random")) == 24
    evaluated = {(p.partition["recipe"], p.partition["benchmark"]) for p in ctx.store.pointers("evaluation")}
    assert evaluated == {(recipe, "held_out") for recipe in ("base", "presel", "random")}
    assert len(ctx.store.read_partition("answers", {"recipe": "presel", "benchmark": "held_out"})) == 12
    assert ctx.store.require("leaderboard", {"benchmark": "held_out"}).rows == 4
    assert all(ctx.store.require("leakage", {"recipe": recipe}).rows == 0 for recipe in ("presel", "random"))
    quarantined = ctx.store.read_partition("quarantine", {"dataset": "shapes"}).to_pylist()
    assert len(quarantined) == 3
    assert all(bad["reason"] and bad["detail"] for bad in quarantined)


def test_second_drive_computes_nothing(finished):
    _, project, _ = finished
    assert drive(Context(project), list(project.recipes), train=True, log=lambda _: None) == []


def test_new_rows_are_the_only_ones_computed(finished, tmp_path, models):
    directory, project = copied(finished, tmp_path, models)
    rows = [*small_rows(), row(300, task="name"), row(301, task="colour")]
    write_rows(directory, rows)
    results = drive(Context(project), ["presel", "random"], train=False, log=lambda _: None)
    computed = {r.stage: 0 for r in results}
    for result in results:
        computed[result.stage] += result.computed
    assert computed["image_embeddings"] == 2
    assert computed.get("reference_model", 0) == 0
    assert computed.get("losses", 0) <= 2
    assert {r.partition.get("recipe") for r in results if r.stage == "selected_subset"} == {"presel", "random"}


def test_removed_and_reordered_rows_cost_no_signal(finished, tmp_path, models):
    directory, project = copied(finished, tmp_path, models)
    write_rows(directory, list(reversed(small_rows()))[:-5])
    results = drive(Context(project), ["presel"], train=False, log=lambda _: None)
    assert sum(r.computed for r in results if r.stage in ("image_embeddings", "losses")) == 0


def test_order_and_shards_do_not_change_the_selection(tmp_path, models):
    found = []
    for name, shard_rows, order in (("one", 1000, 1), ("seven", 14, -1)):
        directory = tmp_path / name
        write_small_project(directory, models)
        values = project_values(directory, models)
        values["datasets"]["shapes"]["shard_rows"] = shard_rows
        import yaml

        (directory / "vsel.yaml").write_text(yaml.safe_dump(values))
        write_rows(directory, small_rows()[::order])
        project = load_project(directory / "vsel.yaml")
        ctx = Context(project)
        drive(ctx, ["presel", "random"], train=False, log=lambda _: None)
        found.append({name: [r["sample_id"] for r in selected(ctx, name)] for name in ("presel", "random")})
    assert found[0] == found[1]


def test_manifest_verifies_its_file_and_replays(finished, tmp_path):
    from vsel_platform.pipeline.selection import export_selection

    _, project, _ = finished
    ctx = Context(project)
    file, manifest = tmp_path / "selected.json", tmp_path / "manifest.json"
    assert export_selection(ctx, "presel", file, manifest) == 30
    assert verify_file(manifest, file).matches
    assert replay_manifest(ctx, manifest).rows == 30
    rows = json.loads(file.read_text())
    source = json.loads((finished[0] / "rows.json").read_text())
    assert all(value in source for value in rows)
    rows[3]["conversations"][1]["value"] += " "
    file.write_text(json.dumps(rows))
    assert not verify_file(manifest, file).matches


def test_replay_still_gives_the_old_selection_after_the_data_changed(finished, tmp_path, models):
    from vsel_platform.pipeline.selection import export_selection

    directory, project = copied(finished, tmp_path, models)
    ctx = Context(project)
    manifest = tmp_path / "manifest.json"
    export_selection(ctx, "presel", tmp_path / "selected.json", manifest)
    write_rows(directory, [*small_rows()[:80], row(400, task="name")])
    drive(ctx, ["presel"], train=False, log=lambda _: None)
    assert replay_manifest(ctx, manifest).rows == 30


KILLED = """
import os, signal, sys
from vsel_platform.config import load_project
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.drive import drive
from vsel_platform.storage import files
count, limit = 0, int(sys.argv[2])
original = files._write_local
def write(path, data):
    global count
    count += 1
    if count == limit:
        os.kill(os.getpid(), signal.SIGKILL)
    original(path, data)
files._write_local = write
drive(Context(load_project(sys.argv[1])), ["presel", "random"], train=False, log=lambda _: None)
print("writes", count)
"""


def run_killed(project_file: Path, limit: int) -> subprocess.CompletedProcess:
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])
    return subprocess.run(
        [sys.executable, "-c", KILLED, str(project_file), str(limit)],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_kill_at_any_write_is_resumed_with_the_same_result(finished, tmp_path, models):
    """The process is killed at a growing number of writes, on the same store, until it comes through."""
    directory = tmp_path / "killed"
    file = write_small_project(directory, models)
    limit, kills = 1, 0
    deadline = time.monotonic() + 200
    while True:
        done = run_killed(file, limit)
        if done.returncode == 0:
            break
        assert done.returncode == -9, done.stderr[-2000:]
        kills += 1
        limit += 3
        assert time.monotonic() < deadline
    assert kills >= 5
    ctx, whole = Context(load_project(file)), Context(finished[1])
    for recipe in ("presel", "random"):
        assert selected(ctx, recipe) == selected(whole, recipe)
    for table in ("manifest", "quarantine"):
        assert ctx.store.require(table, {"dataset": "shapes"}).data_version == (
            whole.store.require(table, {"dataset": "shapes"}).data_version
        )
