"""`vsel propose-questions`: a file of synthetic rows, and what it says about them."""

import json

import pytest
from small_project import project_values, row, write_rows
from typer.testing import CliRunner

from vsel_platform.cli import data, queries  # noqa: F401  (they register their commands)
from vsel_platform.cli.app import app
from vsel_platform.errors import DataError


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """An ingested dataset of five pictures."""
    directory = tmp_path_factory.mktemp("propose")
    write_rows(directory, [row(i) for i in range(5)])
    values = project_values(directory, tmp_path_factory.mktemp("models"))
    values["vlm"]["template"] = "plain"
    values["datasets"]["asked"] = {"source": str(directory / "asked.json"), "image_root": str(directory / "images")}
    file = directory / "vsel.yaml"
    file.write_text(json.dumps(values))
    assert invoke(file, "ingest", "shapes").exit_code == 0
    return file


def invoke(file, *arguments):
    return CliRunner().invoke(app, list(arguments), env={"VSEL_PROJECT": str(file), "COLUMNS": "200"})


def test_the_command_writes_rows_and_counts_the_others(project, tmp_path):
    to = tmp_path / "asked.json"
    options = ("--questions", "2", "--rows", "3", "--to", str(to), "--json")
    result = invoke(project, "propose-questions", "shapes", *options)
    assert result.exit_code == 0, result.exception
    report = json.loads(result.stdout)
    assert report["asked"] == 3
    assert report["written"] + sum(report["dropped"].values()) == 6
    assert len(json.loads(to.read_text())) == report["written"]


def test_the_command_says_what_became_of_the_questions_and_how_to_take_them_in(project, monkeypatch):
    from vsel_platform.pipeline import proposals

    report = proposals.ProposalReport(
        900, 2, 1234, {"near_duplicate": 5}, {"image_missing": 1}, "m", {"source": "a.json"}
    )
    monkeypatch.setattr(proposals, "propose", lambda *args, **options: report)
    lines = invoke(project, "propose-questions", "shapes", "--to", "a.json").stdout.splitlines()
    assert lines == [
        "a.json: 1,234 rows from 900 rows of shapes",
        "  dropped: 5 near_duplicate",
        "  refused: 1 image_missing",
        "  2 rows could not be asked about",
        "to take them in, add to `datasets` of the project file: shapes_asked: {source: a.json}",
    ]


def test_options_reach_the_proposals(project, tmp_path, monkeypatch):
    from vsel_platform.pipeline import proposals

    seen = {}

    def propose(ctx, dataset, asking, **options):
        seen.update(options, dataset=dataset, asking=asking)
        raise DataError("stop")

    monkeypatch.setattr(proposals, "propose", propose)
    options = ("--task", "own", "--recipe", "random", "--seed", "3", "--rows", "9", "--to", str(tmp_path / "a.json"))
    result = invoke(project, "propose-questions", "shapes", *options)
    assert isinstance(result.exception, DataError)
    assert (seen["dataset"], seen["rows"], seen["to"]) == ("shapes", 9, tmp_path / "a.json")
    assert (seen["task"], seen["recipe"]) == ("own", "random")
    assert (seen["asking"].questions, seen["asking"].seed) == (3, 3)


@pytest.mark.parametrize("wrong", [("--questions", "0"), ("--rows", "0")])
def test_numbers_below_one_are_refused(project, wrong):
    assert invoke(project, "propose-questions", "shapes", "--to", "a.json", *wrong).exit_code == 2


def test_the_query_of_the_help_finds_proposed_rows(project):
    help_text = invoke(project, "propose-questions", "--help").stdout
    query = "select * from samples where json_extract(row_json, '$.synthetic') is not null"
    assert query in " ".join(help_text.split())
    marked = {**row(0), "id": "made", "synthetic": {"by": "m", "method": "self_questioning", "of": "x"}}
    marked["conversations"][0]["value"] = "<image>\nWhat else?"
    write_rows(project.parent, [marked, row(1)], "asked.json")
    assert invoke(project, "ingest", "asked").exit_code == 0
    found = json.loads(invoke(project, "sql", query, "--json").stdout)
    assert len(found["rows"] if isinstance(found, dict) else found) == 1
