"""`vsel run`: what it says of a failed run, and how its runs are found in the UI."""

import dagster as dg
import pytest
import yaml
from dagster._core.storage.tags import HIDDEN_TAG_PREFIX, REPOSITORY_LABEL_TAG

from automation import run
from automation.instance import DRIVER_TAG, ROOT, TARGET_TAG, WANT_TAG
from automation.run import REPOSITORY, REPOSITORY_TAG, _exit_code, _why
from resources.failures import failure
from vsel_platform.errors import DataError


def failed(error):
    """Result of a run whose only step raises."""

    @dg.op
    def step():
        raise error

    @dg.job
    def job():
        step()

    return job.execute_in_process(raise_on_error=False)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (dg.Failure("model x: its weights changed", allow_retries=False), "model x: its weights changed"),
        (DataError("rows.json has no rows"), "rows.json has no rows"),
        (ValueError("no such axis"), "ValueError: no such axis"),
    ],
)
def test_a_failed_run_is_told_in_the_words_of_its_error(error, line):
    assert _why(failed(error)) == line


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (failure("rows.json has no rows", may_pass=False, exit_code=DataError.exit_code), 3),
        (dg.Failure("of somebody else's"), 1),
        (ValueError("no such axis"), 1),
    ],
)
def test_the_exit_code_is_that_of_the_error(error, code):
    assert _exit_code(failed(error)) == code


def test_the_cause_counts_not_what_was_made_of_it():
    error = RuntimeError("wrapped")
    error.__cause__ = DataError("rows.json is gone")
    assert _why(failed(error)) == "rows.json is gone"


def test_tags_of_our_own_are_hidden_in_the_ui():
    assert all(tag.startswith(HIDDEN_TAG_PREFIX) for tag in (TARGET_TAG, WANT_TAG, DRIVER_TAG))


def test_runs_are_filed_under_the_code_location_of_the_workspace():
    assert REPOSITORY_TAG == REPOSITORY_LABEL_TAG
    for file in ("workspace.yaml", "docker/workspace.yaml"):
        (location,) = yaml.safe_load((ROOT / file).read_text())["load_from"]
        (settings,) = location.values()
        assert f"__repository__@{settings['location_name']}" == REPOSITORY


@pytest.mark.parametrize("flag", [[], ["--with-parent"]])
def test_the_driver_of_a_command_ends_with_the_command(flag, monkeypatch, tmp_path):
    called = []
    monkeypatch.setattr(run, "end_with_parent", lambda: called.append("end"))
    monkeypatch.setattr(run, "drive", lambda *_, **__: called.append("drive") or 0)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        monkeypatch.setattr(dg.DagsterInstance, "get", lambda: instance)
        assert run.main([*flag, "some_recipe"]) == 0
    assert called == ["end"] * len(flag) + ["drive"]
