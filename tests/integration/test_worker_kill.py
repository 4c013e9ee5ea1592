"""The `subprocess` backend: a killed worker, and a killed run, go on from the parts that were finished."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster_services import wait_for
from small_project import project_values, row, small_project, write_rows

from vsel_platform.config import Project
from vsel_platform.pipeline import embeddings, ingest, vector_stage
from vsel_platform.pipeline.context import Context

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[2]
ROWS = 1600
DRIVER = """
import sys
import dagster as dg
from assets.annotations import register_shards
from automation.instance import fail_runs_of_dead_drivers
from automation.run import materialize
from definitions import defs
from resources.project import project_file
from vsel_platform.config import load_project
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.plan import Step
with dg.DagsterInstance.get() as instance:
    fail_runs_of_dead_drivers(instance)
    register_shards(instance, Context(load_project(project_file())), "shapes")
    materialize(defs, instance, Step("image_embeddings", sys.argv[1], ""), print)
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def vectors(tmp_path_factory, models):
    """What one undisturbed run in this process gives: ids and vectors."""
    project, shard = ingested(tmp_path_factory.mktemp("whole"), models, backend="in_process")
    embeddings.run(Context(project), shard)
    return stored(project)


def ingested(directory: Path, models: Path, *, backend: str) -> tuple[Project, str]:
    """A project with one shard of 1,600 pictures, and the shard's name."""
    dataset = project_values(directory, models)["datasets"]["shapes"] | {"shard_rows": 2 * ROWS}
    compute = {"backend": backend, "device": "cpu"}
    project = small_project(directory, models, datasets={"shapes": dataset}, compute=compute)
    write_rows(directory, [row(i) for i in range(ROWS)])
    return project, ingest.run(Context(project), "shapes").new_shards[0]


def stored(project: Project) -> tuple[list[str], bytes]:
    ctx = Context(project)
    (pointer,) = ctx.store.pointers("image_embeddings")
    assert pointer.rows == ROWS
    check = ctx.vectors.check("image_embeddings", pointer.fingerprint)
    assert (check.rows, check.distinct) == (ROWS, ROWS)
    (images,) = ctx.store.pointers("images")
    wanted = sorted(ctx.store.read(images, ["image_id"])["image_id"].to_pylist())
    ids, matrix = ctx.vectors.read("image_embeddings", pointer.fingerprint, wanted)
    order = sorted(range(len(ids)), key=ids.__getitem__)
    return [ids[i] for i in order], matrix[order].tobytes()


class Driver:
    """A process that materializes the shard's embeddings, its Dagster home, and its worker."""

    def __init__(self, directory: Path, shard: str) -> None:
        self.home = directory / "dagster"
        self.store = directory / "store"
        self.environment = os.environ | {
            "DAGSTER_HOME": str(self.home),
            "VSEL_PROJECT": str(directory / "vsel.yaml"),
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
        }
        self.command = [sys.executable, "-c", DRIVER, shard]

    def start(self) -> subprocess.Popen[bytes]:
        subprocess.run([sys.executable, "-m", "automation.instance"], cwd=ROOT, env=self.environment, check=True)
        return subprocess.Popen(self.command, cwd=ROOT, env=self.environment)

    def parts(self) -> list[Path]:
        return list((self.store / "work").rglob("*.parquet"))

    def worker(self, process: subprocess.Popen[bytes]) -> psutil.Process:
        """The worker, as soon as it has finished a part."""
        deadline = time.monotonic() + 120
        while not self.parts():
            assert process.poll() is None, "the run ended before a part was seen"
            assert time.monotonic() < deadline, "no part was finished"
            time.sleep(0.005)
        children = psutil.Process(process.pid).children(recursive=True)
        return next(child for child in children if "resources.pipes_worker" in child.cmdline())

    def progress(self) -> list[str]:
        """Progress messages of all runs, in order."""
        with dg.DagsterInstance.from_config(str(self.home)) as instance:
            runs = reversed(instance.get_runs())
            events = [event for run in runs for event in instance.all_logs(run.run_id)]
        return [event.user_message for event in events if "images embedded" in event.user_message]


def test_a_killed_worker_is_started_again_and_goes_on(tmp_path, models, vectors):
    project, shard = ingested(tmp_path, models, backend="subprocess")
    driver = Driver(tmp_path, shard)
    process = driver.start()
    driver.worker(process).send_signal(signal.SIGKILL)
    assert process.wait(200) == 0
    assert stored(project) == vectors
    assert not driver.parts()
    messages = driver.progress()
    resumed = [int(m.split(" of ")[0].replace(",", "")) for m in messages]
    assert min(resumed) < vector_stage.PART_ROWS < resumed[-1]
    assert resumed == sorted(resumed), "the second worker began anew"


def test_a_killed_run_takes_its_worker_along_and_the_next_run_goes_on(tmp_path, models, vectors):
    project, shard = ingested(tmp_path, models, backend="subprocess")
    driver = Driver(tmp_path, shard)
    process = driver.start()
    worker = driver.worker(process)
    process.send_signal(signal.SIGKILL)
    assert process.wait(20) == -signal.SIGKILL
    wait_for(lambda: not worker.is_running(), 20, lambda: "the worker outlived its run")
    assert driver.parts()
    assert driver.start().wait(200) == 0
    assert stored(project) == vectors
    assert not driver.parts()
