"""Jobs whose rows several processes share give the bytes of one process."""

from pathlib import Path

import pytest
from free2ds_project import free2ds_settings
from small_project import row, small_rows

from vsel_platform.pipeline.lookup import dataset_shards
from vsel_platform.ranks import Share
from vsel_platform.worker import SIGNALS, Job, run_job

STAGES = [stage for stage in SIGNALS if stage != "losses"]  # losses need a reference model; base_losses are the same

ONE_SHARD = {"datasets.shapes.shard_rows": 1000}


def quiet(message, done, total):
    """Progress that nobody reads."""


@pytest.fixture(scope="module")
def settings(models):
    return free2ds_settings(models) | ONE_SHARD | {"compute": {"backend": "in_process", "device": "cpu", "threads": 1}}


def computed(project, settings, processes, stages):
    """Data versions of signals of the only shard."""
    changes = settings | {"compute": settings["compute"] | {"processes": processes}}
    ctx = project.context(changes)
    shard = dataset_shards(ctx, "shapes")[0]
    return {s: run_job(Job(stage=s, key=shard, project=ctx.project), quiet) for s in stages}


def test_two_processes_give_the_bytes_of_one(make_project, settings):
    results = []
    for name, processes in (("one", 1), ("two", 2)):
        project = make_project(name)
        project.write([*small_rows(), *(row(i) for i in range(1000, 1200))])
        project.drive(["random"], ONE_SHARD)
        results.append(computed(project, settings, processes, STAGES))
    one, two = results
    for stage in STAGES:
        assert one[stage].data_version == two[stage].data_version != "", stage
        assert (one[stage].rows, one[stage].computed) == (two[stage].rows, two[stage].computed), stage
        assert one[stage].failed == two[stage].failed, stage


def test_every_process_had_its_share(make_project, settings, monkeypatch):
    project = make_project("shares")
    project.write([row(i) for i in range(300)])
    project.drive(["random"], ONE_SHARD)
    shares = []
    together = Share.together
    monkeypatch.setattr(Share, "together", lambda self, work: (shares.append(self), together(self, work))[1])
    done = []
    ctx = project.context(settings | {"compute": settings["compute"] | {"processes": 2}})
    job = Job(stage="base_losses", key=dataset_shards(ctx, "shapes")[0], project=ctx.project)
    result = run_job(job, lambda message, n, total: done.append(total))
    assert shares == [Share(0, 2)]
    assert set(done) == {172}  # windows of 128 rows: the first and the last are of this process
    assert result.computed == 300


def test_failures_of_all_processes_are_reported(make_project, settings):
    project = make_project("failing")
    project.write([row(i) for i in range(300)])
    project.drive(["random"], ONE_SHARD)
    ctx = project.context(settings)
    images = ctx.store.read_partition("images", {"shard": dataset_shards(ctx, "shapes")[0]}, ["path"])
    paths = images["path"].to_pylist()[:40]
    for path in paths:
        Path(path).unlink()
    (result,) = computed(project, settings, 2, ["base_losses"]).values()
    assert result.failed == 40
