"""Reselection is level-triggered: whatever happened before, what is stale is requested, once, and not for ever."""

import os
from types import SimpleNamespace

import dagster as dg
import pytest
from loaded_deployment import deployment_of
from small_project import row, small_rows, write_rows, write_small_project

from vsel_platform.errors import DataError, NotMaterializedError, StorageError, VselError

RANDOM_ONLY = {"random": {"dataset": "shapes", "method": "random", "budget": {"percent": 25}}}


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    """The deployment's modules, loaded for a small project (its recipe needs no model)."""
    directory = tmp_path_factory.mktemp("project")
    file = write_small_project(directory, tmp_path_factory.mktemp("models"), recipes=RANDOM_ONLY)
    with deployment_of(file) as patch:
        import definitions
        from automation import requests, run, sensors

        patch.setattr(requests, "HEAD_START", 0)  # one test is about it
        yield directory, definitions.defs, sensors, run


def evaluate(sensor, instance, deployment, cursor=None):
    resource = deployment[1].resources["project"]
    context = dg.build_sensor_context(instance=instance, resources={"project": resource}, cursor=cursor)
    found = list(sensor(context))
    return (
        [f for f in found if isinstance(f, dg.RunRequest)],
        [f for f in found if isinstance(f, dg.SkipReason)],
        context,
    )


def test_missing_stages_are_requested_one_after_the_other(deployment):
    directory, _, sensors, run = deployment
    write_rows(directory, small_rows())
    with dg.DagsterInstance.ephemeral() as instance:
        requests, _, _ = evaluate(sensors.reconcile_selections, instance, deployment)
        assert [(r.asset_selection[1].to_user_string(), r.partition_key) for r in requests] == [
            ("dataset_manifest", "shapes")
        ]
        assert requests[0].tags[".dagster/vsel_target"] == "dataset_manifest:shapes"
        assert requests[0].job_name == "ingest"
        assert run.drive(instance, ["random"], train=False, log=lambda _: None) == 2
        assert [r.job_name for r in instance.get_runs()] == ["select", "ingest"]
        requests, skips, _ = evaluate(sensors.reconcile_selections, instance, deployment)
        assert not requests
        assert "every selection is current" in skips[0].skip_message


def test_change_after_success_is_seen_by_both_sensors(deployment):
    directory, _, sensors, run = deployment
    with dg.DagsterInstance.ephemeral() as instance:
        write_rows(directory, small_rows())
        run.drive(instance, ["random"], train=False, log=lambda _: None)
        _, skips, context = evaluate(sensors.changed_sources, instance, deployment)
        assert skips
        write_rows(directory, [*small_rows(), row(700)])
        requests, _, _ = evaluate(sensors.changed_sources, instance, deployment, cursor=context.cursor)
        assert [r.partition_key for r in requests] == ["shapes"]
        requests, _, _ = evaluate(sensors.reconcile_selections, instance, deployment)
        assert requests


def test_source_that_returns_to_an_earlier_content_is_a_change_of_its_own(deployment):
    directory, _, sensors, run = deployment
    first, second = [*small_rows(), row(710)], [*small_rows(), row(711)]
    keys, cursor = [], None
    with dg.DagsterInstance.ephemeral() as instance:
        for rows in (first, second, first):
            write_rows(directory, rows)
            requests, _, context = evaluate(sensors.changed_sources, instance, deployment, cursor=cursor)
            repeated, _, _ = evaluate(sensors.changed_sources, instance, deployment, cursor=cursor)
            assert [r.run_key for r in repeated] == [r.run_key for r in requests], "an unsaved cursor asks once"
            keys += [r.run_key for r in requests]
            cursor = context.cursor
            run.drive(instance, ["random"], train=False, log=lambda _: None)
    assert len(keys) == len(set(keys)) == 3, "Dagster drops a request whose run key it has seen"


def test_running_and_failing_targets_are_left_alone(deployment):
    directory, defs, sensors, _ = deployment
    write_rows(directory, [*small_rows(), row(800)])
    with dg.DagsterInstance.ephemeral() as instance:
        requests, _, _ = evaluate(sensors.reconcile_selections, instance, deployment)
        tags = requests[0].tags
        job = defs.resolve_implicit_global_asset_job_def()
        running = instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.STARTED)
        requests, skips, _ = evaluate(sensors.reconcile_selections, instance, deployment)
        assert not requests
        assert "is running" in skips[0].skip_message
        instance.delete_run(running.run_id)
        for _ in range(3):
            instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.FAILURE)
        requests, skips, _ = evaluate(sensors.reconcile_selections, instance, deployment)
        assert not requests
        assert "failed 3 times" in skips[0].skip_message
        write_rows(directory, [*small_rows(), row(801)])
        requests, _, _ = evaluate(sensors.reconcile_selections, instance, deployment)
        assert requests, "new inputs are a new chance"


def test_one_change_is_asked_for_by_one_sensor(deployment, monkeypatch):
    directory, defs, sensors, run = deployment
    from automation import requests

    monkeypatch.setattr(requests, "HEAD_START", 1.5)
    with dg.DagsterInstance.ephemeral() as instance:
        write_rows(directory, small_rows())
        run.drive(instance, ["random"], train=False, log=lambda _: None)
        write_rows(directory, [*small_rows(), row(730)])
        # Both tick at the same moment: there is no run yet that the other could see.
        asked, _, _ = evaluate(sensors.changed_sources, instance, deployment)
        again, skips, context = evaluate(sensors.reconcile_selections, instance, deployment)
        assert [r.partition_key for r in asked] == ["shapes"]
        assert not again
        assert "left to changed_sources" in skips[0].skip_message
        # The request is a run now, queued or later, and both know it by its target.
        tags = asked[0].tags
        job = defs.resolve_job_def("ingest")
        asked_for = instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.NOT_STARTED)
        assert not evaluate(sensors.changed_sources, instance, deployment)[0]
        monkeypatch.setattr(requests, "HEAD_START", 0)
        _, skips, _ = evaluate(sensors.reconcile_selections, instance, deployment)
        assert "dataset_manifest:shapes is running" in skips[0].skip_message
        # It is lost, and nobody else asks: then reconciliation does, with the same tags.
        instance.delete_run(asked_for.run_id)
        again, _, _ = evaluate(sensors.reconcile_selections, instance, deployment, cursor=context.cursor)
        assert again[0].tags == tags


def test_a_changed_source_is_waited_for_as_long_as_it_stays_the_same(monkeypatch):
    from automation import requests
    from vsel_platform.pipeline.plan import Step

    def tick(cursor, want, at, asset="dataset_manifest"):
        monkeypatch.setattr(requests, "time", SimpleNamespace(time=lambda: at))
        waiting = requests.Waiting.load(cursor, 30)
        return waiting.refusal(Step(asset, "a", want)) is None, waiting.cursor()

    monkeypatch.setattr(requests, "HEAD_START", 1.5)
    asked, cursor = tick(None, "x", 1000.0)
    assert not asked
    assert not tick(cursor, "x", 1000.0 + 30 * requests.HEAD_START - 1)[0]
    assert tick(cursor, "x", 1000.0 + 30 * requests.HEAD_START + 1)[0]
    assert not tick(cursor, "y", 1000.0 + 30 * requests.HEAD_START + 1)[0], "another change, another wait"
    assert tick(None, "x", 1000.0, asset="selected_subset")[0], "nobody else asks for it"


def test_an_error_that_stays_is_not_asked_for_again_until_its_input_changes(deployment):
    directory, _, sensors, run = deployment
    with dg.DagsterInstance.ephemeral() as instance:
        (directory / "rows.json").write_text("[]")
        with pytest.raises(VselError, match="has no rows") as caught:
            run.drive(instance, ["random"], train=False, log=lambda _: None)
        assert caught.value.exit_code == DataError.exit_code
        requests, skips, _ = evaluate(sensors.reconcile_selections, instance, deployment)
        assert not requests
        assert "would fail again" in skips[0].skip_message
        assert "has no rows" in skips[0].skip_message
        write_rows(directory, [*small_rows(), row(740)])
        assert evaluate(sensors.reconcile_selections, instance, deployment)[0]


@pytest.mark.parametrize("error", [StorageError("busy"), NotMaterializedError("gone"), RuntimeError("unforeseen")])
def test_an_error_that_may_pass_is_asked_for_again(deployment, monkeypatch, error):
    directory, _, sensors, run = deployment
    from vsel_platform.pipeline import ingest

    def fail(ctx, dataset):
        raise error

    monkeypatch.setattr(ingest, "run", fail)
    with dg.DagsterInstance.ephemeral() as instance:
        write_rows(directory, [*small_rows(), row(750)])
        for _ in range(3):
            assert evaluate(sensors.reconcile_selections, instance, deployment)[0]
            with pytest.raises(VselError, match=str(error)):
                run.drive(instance, ["random"], train=False, log=lambda _: None)
        _, skips, _ = evaluate(sensors.reconcile_selections, instance, deployment)
        assert "failed 3 times" in skips[0].skip_message


def test_failed_check_blocks_the_selection_in_another_run(deployment):
    directory, _, sensors, run = deployment
    with dg.DagsterInstance.ephemeral() as instance:
        write_rows(directory, [*small_rows(), *[{"id": i, "conversations": []} for i in range(60)]])
        with pytest.raises(VselError, match="conversation_empty") as caught:
            run.drive(instance, ["random"], train=False, log=lambda _: None)
        assert caught.value.exit_code == NotMaterializedError.exit_code
        _, skips, _ = evaluate(sensors.reconcile_selections, instance, deployment)
        assert "quarantine_rate" in skips[0].skip_message
        write_rows(directory, small_rows())
        run.drive(instance, ["random"], train=False, log=lambda _: None)


def test_nothing_that_trains_is_a_target_of_automation(deployment):
    _, defs, sensors, _ = deployment
    targets = {job.name for sensor in sensors.ALL for job in sensor.jobs}
    assert targets == {"ingest", "signals", "reference", "scores", "select", "compare"}
    assert {schedule.job.name for schedule in defs.schedules} == {"reselect", "maintenance"}


def test_every_asset_that_is_materialized_has_a_job(deployment):
    _, defs, _, _ = deployment
    from automation.jobs import stage_job

    graph = defs.resolve_asset_graph()
    for key in graph.materializable_asset_keys:
        job = defs.resolve_job_def(stage_job(key.to_user_string()))
        assert key in job.asset_layer.executable_asset_keys


def test_the_drive_of_all_recipes_trains_only_in_the_demo(deployment, monkeypatch):
    _, defs, _, run = deployment
    asked = []
    monkeypatch.setattr(run, "drive", lambda instance, recipes, *, train, log: asked.append((recipes, train)))
    for name in ("reselect", "demo"):
        assert defs.resolve_job_def(name).execute_in_process().success
    assert asked == [([], False), ([], True)]


def test_rows_without_a_task_are_told_by_the_run(deployment):
    directory, _, _, run = deployment
    lines = []
    with dg.DagsterInstance.ephemeral() as instance:
        write_rows(directory, [*small_rows(), {**row(720), "task": None}])
        run.drive(instance, ["random"], train=False, log=lines.append)
    assert [line for line in lines if line.startswith("warning: 1 of 97 rows have no text")]


def test_automation_can_be_switched_off(deployment, monkeypatch):
    sensors = deployment[2]
    monkeypatch.setitem(os.environ, "VSEL_AUTOMATION", "off")
    assert sensors.default_status() == dg.DefaultSensorStatus.STOPPED
    monkeypatch.setitem(os.environ, "VSEL_AUTOMATION", "on")
    assert sensors.default_status() == dg.DefaultSensorStatus.RUNNING
