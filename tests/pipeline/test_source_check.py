"""What `vsel check` says of a source: refused rows against their limit, tasks, and rows without one."""

import json

import pytest

from vsel_platform.config import parse_project
from vsel_platform.pipeline import ingest
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.ingest import MOST_TASKS, check_source


def row(number, **more):
    turns = [{"from": "human", "value": f"{number}?"}, {"from": "gpt", "value": "yes"}]
    return {"id": number, "conversations": turns, **more}


@pytest.fixture
def context(tmp_path):
    def make(rows, task="{column: kind}", limit=0.5):
        (tmp_path / "a.json").write_text(json.dumps(rows))
        text = f"name: p\ndatasets: {{a: {{source: a.json, max_quarantine_rate: {limit}, task: {task}}}}}\n"
        return Context(parse_project(text, base_dir=str(tmp_path)))

    return make


def test_rows_are_told_by_task_with_the_largest_first(context):
    rows = [row(n, kind="vqa" if n else "caption") for n in range(5)]
    lines = check_source(context(rows), "a").to_text().splitlines()
    assert [line.split() for line in lines[1:]] == [["4", "task", "vqa"], ["1", "task", "caption"]]


def test_many_tasks_are_summed_up(context):
    rows = [row(n, kind=f"t{n}") for n in range(MOST_TASKS + 3)]
    lines = check_source(context(rows), "a").to_text().splitlines()
    assert len(lines) == MOST_TASKS + 2
    assert lines[-1].split() == ["3", "in", "more", "tasks"]


def test_a_key_that_no_row_has_is_a_warning(context):
    found = check_source(context([row(n, task="vqa") for n in range(4)]), "a")
    assert "warning: all 4 rows have no text or whole number under the key 'kind'" in found.to_text()
    assert found.to_dict()["tasks"] == {"default": 4}


def test_without_a_source_of_tasks_nothing_is_said_of_them(context):
    assert len(check_source(context([row(0)], task="{}"), "a").to_text().splitlines()) == 1


@pytest.mark.parametrize(("limit", "above"), [(0.5, False), (0.2, True)])
def test_too_many_refused_rows_are_told_in_words(context, limit, above):
    found = check_source(context([row(0), row(1), 17], limit=limit), "a")
    assert found.above_limit is above
    assert ("that is 33.3%, more than max_quarantine_rate 20.0%" in found.to_text()) is above


def test_the_warning_and_the_source_files_stay_with_the_manifest(context, tmp_path):
    ctx = context([row(0, kind="vqa"), row(1)])
    found = ingest.run(ctx, "a").manifest.metadata
    assert found["warning"].startswith("1 of 2 rows have no text")
    assert (found["source_files"], found["n_source_files"]) == ([str(tmp_path / "a.json")], 1)
    assert "warning" not in ingest.run(context([row(0, kind="vqa")]), "a").manifest.metadata
