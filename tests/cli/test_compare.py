"""`vsel compare` and `vsel methods`: for people, for programs, as a page, and what they refuse."""

import json
from itertools import combinations

import pytest
import yaml
from small_project import write_small_project
from typer.testing import CliRunner

from vsel_platform.cli import data, queries, recipes  # noqa: F401  (they register their commands)
from vsel_platform.cli.app import app
from vsel_platform.errors import ConfigError, NotMaterializedError, SelectionError
from vsel_platform.methods.describe import as_text, describe

OWN = """
from pydantic import Field
from vsel_platform.methods.api import Method, Options, Score, ScoreTable

class LengthOptions(Options):
    power: float = Field(1.5, description="Power of the length.")

def length(signals, options):
    return ScoreTable(signals.n_characters ** options.power)

METHOD = Method("own", Score("length", length, "Length.", options=LengthOptions), quota="task", paper="a note")
"""
ROW = {"dataset": "shapes", "budget": {"rows": 20}}
RECIPES = {
    "again": ROW | {"method": "random", "seed": 9},
    "drawn": ROW | {"method": "random", "budget": {"rows": 30}},
    "longest": ROW | {"method": "mine"},
    "waiting": ROW | {"method": "random", "seed": 3},
}
SELECTED = ["again", "drawn", "longest"]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with three selections and a recipe that has none; no model runs."""
    directory = tmp_path_factory.mktemp("compared")
    (directory / "own.py").write_text(OWN)
    models = tmp_path_factory.mktemp("models")
    file = write_small_project(directory, models, recipes=RECIPES, methods={"mine": "own.py"})
    assert invoke(file, "run", *SELECTED, "--engine").exit_code == 0
    return file


def invoke(file, *arguments):
    environment = {"VSEL_PROJECT": str(file)} if file else {}
    return CliRunner().invoke(app, list(arguments), env=environment | {"COLUMNS": "200"})


def output(file, *arguments):
    result = invoke(file, *arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def raised(file, *arguments):
    result = invoke(file, *arguments)
    assert result.exit_code != 0
    return result.exception


def test_all_that_have_selected_are_compared(project):
    lines = output(project, "compare").splitlines()
    assert lines[0].split()[:2] == ["recipe", "rows"]
    assert [line.split()[:2] for line in lines[1:4]] == [["again", "20"], ["drawn", "30"], ["longest", "20"]]
    pairs = {line.split("  ")[0] for line in lines[lines.index("") :] if " / " in line}
    assert pairs == {f"{a} / {b}" for a, b in combinations(SELECTED, 2)}


def test_a_comparison_can_be_read_by_programs(project):
    found = json.loads(output(project, "compare", "--json"))
    assert found["dataset"] == "shapes"
    assert [row["recipe"] for row in found["recipes"]] == SELECTED
    assert [(pair["recipe"], pair["other"]) for pair in found["pairs"]] == list(combinations(SELECTED, 2))
    for row in found["recipes"]:
        assert row["training_hours"] is None  # nothing was trained in this store
        assert row["task_coverage_random_low"] <= row["task_coverage_random_high"] <= 1
    stored = json.loads(output(project, "sql", "from compared_recipes order by recipe", "--json"))["rows"]
    assert [row["tokens"] for row in stored] == [row["tokens"] for row in found["recipes"]]


def test_recipes_are_compared_in_the_order_that_is_asked_for(project):
    found = json.loads(output(project, "compare", "longest", "again", "--json"))
    assert [row["recipe"] for row in found["recipes"]] == ["longest", "again"]
    assert output(project, "compare", "longest", "again").splitlines()[1].startswith("longest")


def test_a_page_is_written_where_it_is_asked_for(project, tmp_path):
    page = tmp_path / "comparison.html"
    assert f"wrote {page}" in output(project, "compare", "again", "drawn", "--page", str(page))
    html = page.read_text("utf-8")
    assert all(f"<td>{name}</td>" in html for name in ("again", "drawn"))
    assert "<td>longest</td>" not in html
    assert html.count("data:image/png;base64,") == 3
    page.unlink()
    json.loads(output(project, "compare", "again", "drawn", "--page", str(page), "--json"))
    assert page.read_text("utf-8") == html


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        (["again"], SelectionError, "at least two recipes of dataset shapes; got again"),
        (["again", "again"], SelectionError, "at least two recipes"),
        (["nobody"], ConfigError, "nobody"),
        (["again", "nobody"], ConfigError, "nobody"),
        (["again", "waiting"], NotMaterializedError, "selected_subset of recipe waiting"),
    ],
)
def test_what_cannot_be_compared_is_named(project, names, error, message):
    found = raised(project, "compare", *names)
    assert type(found) is error
    assert message in str(found)


def test_nothing_to_compare_yet_is_said(project, tmp_path):
    values = yaml.safe_load(project.read_text()) | {"store": str(tmp_path / "store")}
    values["methods"] = {"mine": str(project.with_name("own.py"))}
    file = tmp_path / "vsel.yaml"
    file.write_text(yaml.safe_dump(values))
    assert isinstance(raised(file, "compare"), NotMaterializedError)
    output(file, "ingest")
    assert "got none" in str(raised(file, "compare"))


def test_methods_of_a_project_are_listed_with_its_own(project):
    found = json.loads(output(project, "methods", "--json"))
    names = [method["name"] for method in found["methods"]]
    assert names == sorted(names)
    assert set(names) == {method["name"] for method in describe(None)["methods"]} | {"mine"}
    (mine,) = (method for method in found["methods"] if method["name"] == "mine")
    assert mine["parts"] == "score length, quota task, diversity top"
    assert mine["options"] == {"power": {"default": 1.5, "description": "Power of the length."}}
    text = output(project, "methods")
    assert "mine" in text
    assert "[a note]" in text
    assert "power (default 1.5): Power of the length." in text


def test_methods_are_listed_without_a_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VSEL_PROJECT", raising=False)
    assert output(None, "methods").rstrip("\n") == as_text(describe(None))
    assert json.loads(output(None, "methods", "--json")) == describe(None)


def test_a_project_that_is_named_and_missing_is_no_project(tmp_path):
    assert isinstance(raised(tmp_path / "none.yaml", "methods"), ConfigError)


@pytest.mark.parametrize("command", ["compare", "methods"])
def test_the_commands_explain_themselves_with_an_example(command):
    text = output(None, command, "--help")
    assert f"vsel {command}" in text
    assert "--json" in text
