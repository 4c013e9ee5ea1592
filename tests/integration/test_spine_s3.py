"""The whole spine on a real HTTP S3 server, with two processes that write at the same time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_project import small_project, write_small_project

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


def run_cli(file: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-c", "from vsel_platform.cli import main; main()", *arguments, "-p", str(file)]
    return subprocess.Popen(
        command,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_writers_at_once_give_what_one_gives_on_a_directory(s3_root, tmp_path, models):
    local = small_project(tmp_path / "local", models)
    drive(Context(local), ["presel"], train=False, log=lambda _: None)
    file = write_small_project(tmp_path / "remote", models, store=s3_root)
    writers = [run_cli(file, "run", "--engine", "presel", "random") for _ in range(2)]
    for writer in writers:
        _, errors = writer.communicate(timeout=240)
        assert writer.returncode == 0, errors[-2000:]
    remote = Context(load_project(file))
    assert next_steps(remote, ["presel", "random"]) == []
    found = [
        ctx.store.read_partition("selected_subset", {"recipe": "presel"})["sample_id"].to_pylist()
        for ctx in (Context(local), remote)
    ]
    assert found[0] == found[1]
    for pointer in remote.store.pointers():
        if pointer.table == "image_embeddings":
            check = remote.vectors.check("image_embeddings", pointer.fingerprint)
            assert check.rows == check.distinct


def test_query_export_verify_and_replay_work_on_s3(s3_root, tmp_path, models):
    file = write_small_project(tmp_path, models, store=s3_root)
    project = load_project(file)
    drive(Context(project), ["random"], train=False, log=lambda _: None)
    exported, manifest = tmp_path / "selected.json", tmp_path / "manifest.json"
    done = run_cli(file, "export", "random", "--to", str(exported), "--manifest", str(manifest))
    assert done.wait(120) == 0, done.stderr.read()
    assert verify_file(manifest, exported).matches
    assert replay_manifest(Context(project), manifest).rows == len(json.loads(exported.read_text()))
    done = run_cli(file, "sql", "select count(*) as n from selected_subset", "--json")
    out, errors = done.communicate(timeout=120)
    assert done.returncode == 0, errors
    assert json.loads(out)["rows"] == [{"n": 24}]
