"""The command line on a small project: every command, its exit codes, and what programs can read."""

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer
from small_project import write_small_project
from typer.testing import CliRunner

from vsel_platform.cli import data, deployment, evaluation, queries, recipes, ui  # noqa: F401  (they register their commands)
from vsel_platform.cli.app import app
from vsel_platform.config import load_project
from vsel_platform.errors import ConfigError, QueryError, SelectionError, VerificationError

ROOT = Path(__file__).parents[2]
COMMANDS = [
    "init",
    "demo",
    "check",
    "ingest",
    "run",
    "select",
    "explain",
    "export",
    "verify",
    "replay",
    "sql",
    "lineage",
    "doctor",
    "gc",
    "config",
    "ui",
    "leaderboard",
    "upload",
    "lmms-export",
    "lmms-import",
    "evidence",
    "propose-questions",
]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project whose random recipe is selected (no model runs)."""
    directory = tmp_path_factory.mktemp("cli")
    file = write_small_project(directory, tmp_path_factory.mktemp("models"))
    assert invoke(file, "run", "random", "--engine").exit_code == 0
    return file


def invoke(file, *arguments, **options):
    environment = {"VSEL_PROJECT": str(file), "COLUMNS": "200"}
    return CliRunner().invoke(app, list(arguments), env=environment, **options)


def output(file, *arguments):
    result = invoke(file, *arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def raised(file, *arguments):
    result = invoke(file, *arguments)
    assert result.exception is not None
    return result.exception


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command):
    result = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert command == "config" or "vsel" in result.output


def test_no_help_text_loses_a_bracket_to_markup():
    """Rich reads [s] as a style and prints nothing for it."""
    for name, command in typer.main.get_command(app).commands.items():
        texts = [command.help or "", command.epilog or "", *(getattr(p, "help", None) or "" for p in command.params)]
        assert not [text for text in texts if re.search(r"\[[a-z#/@]", text)], name


def test_training_without_benchmarks_says_that_nothing_is_evaluated(tmp_path_factory):
    models = tmp_path_factory.mktemp("models")
    trained = {"random": {"dataset": "shapes", "method": "random", "budget": {"rows": 8}}}
    untrained = {"random": trained["random"] | {"train": False}}
    for recipes_of, benchmarks, told in ((trained, {}, True), (untrained, {}, False), (trained, None, False)):
        changes = {"recipes": recipes_of} | ({"benchmarks": benchmarks} if benchmarks is not None else {})
        file = write_small_project(tmp_path_factory.mktemp("trained"), models, **changes)
        arguments = ("run", "random", "--train", "--dry-run")
        assert ("nothing is evaluated" in output(file, *arguments)) is told
        assert json.loads(output(file, *arguments, "--json")), "one document, nothing else"
        assert "nothing is evaluated" not in output(file, "run", "random", "--dry-run")


def test_a_run_says_that_nothing_is_evaluated_too(tmp_path_factory, monkeypatch):
    file = write_small_project(tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("models"), benchmarks={})
    monkeypatch.setattr(deployment, "run_in_dagster", lambda project, names, *, train: 0)
    assert "nothing is evaluated" in output(file, "run", "random", "--train")


def test_init_writes_a_project_that_loads_and_never_replaces_one(tmp_path):
    file = tmp_path / "new" / "vsel.yaml"
    output(file, "init", str(file))
    assert load_project(file).recipes["presel_15"].method == "presel"
    assert isinstance(raised(file, "init", str(file)), ConfigError)


def test_init_says_that_weights_are_needed_or_names_models_that_need_none(tmp_path):
    hub, small = tmp_path / "hub.yaml", tmp_path / "small.yaml"
    output(hub, "init", str(hub))
    assert "downloaded" in hub.read_text()
    assert "--demo-models" in hub.read_text()
    output(small, "init", str(small), "--demo-models", "--image-root", "my: pictures")
    project = load_project(small)
    assert project.datasets["train"].image_root == "my: pictures"
    assert (project.image_encoder.name, project.vlm.model) == ("efficientnet_lite0", "embedded:demo")
    assert (project.vlm.template, project.vlm.dtype, project.vlm.max_tokens) == ("plain", "float32", 256)
    assert project.reference.lora == project.training.lora
    assert project.reference.lora.rank == 16


def test_version():
    from vsel_platform import __version__

    assert CliRunner().invoke(app, ["--version"]).stdout == f"vsel {__version__}\n"


def test_check_reads_without_storing(project):
    report = json.loads(output(project, "check", "--json"))[0]
    assert report["rows"] == 99
    assert sum(report["rejected"].values()) == 3
    assert report["tasks"] == {"name": 30, "colour": 30, "count": 30, "text": 6}
    assert "would be quarantined" in output(project, "check", "shapes")


def test_ingest_again_brings_nothing_new(project):
    found = json.loads(output(project, "ingest", "--json"))[0]
    assert found["computed"] == 0
    assert found["rows"] == 96
    assert found["failed_checks"] == []


def test_dry_run_says_what_would_be_computed(project):
    assert "everything is current" in output(project, "run", "random", "--dry-run")
    lines = json.loads(output(project, "run", "presel", "--dry-run", "--json"))["lines"]
    assert lines[0]["stage"] == "image_embeddings"
    assert lines[0]["rows"] == lines[0]["model_passes"] == 90
    assert lines[0]["n_bytes"] > 0
    models = json.loads(output(project, "run", "presel", "--dry-run", "--json"))["models"]
    assert [(m["key"], m["available"]) for m in models] == [("image_encoder", True), ("vlm", True)]
    assert "weights are in this directory" in output(project, "run", "presel", "--dry-run")
    assert "weights" not in output(project, "run", "random", "--dry-run")


def test_select_and_explain(project):
    assert "24 rows selected" in output(project, "select", "random")
    rows = json.loads(output(project, "sql", "select sample_id, position from selected_subset order by rank", "--json"))
    first = rows["rows"][0]
    found = json.loads(output(project, "explain", first["sample_id"], "-r", "random", "--json"))
    assert found["selected"] is True
    assert found["facts"]["rank"] == 1
    assert output(project, "explain", f"position:{first['position']}", "-r", "random").startswith(first["sample_id"])
    out = json.loads(output(project, "explain", "row-1", "-r", "random", "--json"))
    assert out["facts"]["position"] == 1
    assert out["sentences"]
    assert "position 96 of dataset shapes is in quarantine" in output(project, "explain", "bad-1", "-r", "random")
    refused = json.loads(output(project, "explain", "position:98", "-r", "random", "--json"))
    assert (refused["selected"], refused["quarantine"][0]["reason"]) == (False, "not_an_object")
    assert isinstance(raised(project, "explain", "nothing", "-r", "random"), SelectionError)
    assert isinstance(raised(project, "explain", "row-1", "-r", "unknown"), ConfigError)


def test_export_verify_replay(project, tmp_path):
    data_file, manifest = tmp_path / "selected.json", tmp_path / "manifest.json"
    output(project, "export", "random", "--to", str(data_file), "--manifest", str(manifest))
    assert "exactly the 24 rows" in output(project, "verify", str(manifest), "--data", str(data_file))
    assert json.loads(output(project, "replay", str(manifest), "--json"))["same"] is True
    rows = json.loads(data_file.read_text())
    data_file.write_text(json.dumps(rows[:-1]))
    error = raised(project, "verify", str(manifest), "--data", str(data_file))
    assert isinstance(error, VerificationError)
    assert "1 missing" in str(error)


def test_sql_refuses_what_is_not_one_select(project):
    for text in ("drop table manifest", "select 1; select 2", "select * from read_csv('/etc/passwd')"):
        assert isinstance(raised(project, "sql", text), QueryError)


def test_sql_shell_goes_on_after_an_error(project):
    result = invoke(project, "sql", input="select 1 as one;\ndrop table x;\n.tables\nselect 2 as two;\n.quit\n")
    assert result.exit_code == 0
    assert "one" in result.output
    assert "two" in result.output
    assert "error" in result.output
    assert "selected_subset" in result.output


def test_sql_sees_the_store_as_it_was(project):
    error = raised(project, "sql", "from manifest", "--as-of", "2020-01-01")
    assert isinstance(error, QueryError)
    assert "the store was empty at 2020-01-01" in str(error)
    now = datetime.now(UTC).isoformat()
    rows = json.loads(output(project, "sql", "from manifest", "--as-of", now, "--json"))["rows"]
    assert len(rows) == 96


def test_sql_cuts_nothing_without_a_terminal(project):
    long = "x" * 300
    found = invoke(project, "sql", f"select '{long}' as a_rather_long_name, 1 as second").stdout
    assert long in found
    assert found.split()[:2] == ["a_rather_long_name", "second"]


def test_sql_prints_csv(project):
    query = "select 'a,b' as text, null as nothing, [1, 2] as list, 1.5 as number"
    assert output(project, "sql", "--csv", query) == 'text,nothing,list,number\n"a,b",,"[1,2]",1.5\n'
    assert isinstance(raised(project, "sql", "--csv", "--json", query), QueryError)


def test_lineage_doctor_gc_config(project):
    lineage = output(project, "lineage", "selected_subset/recipe=random")
    assert "manifest/dataset=shapes" in lineage
    assert "rows.json  source file" in lineage
    assert {f["check"] for f in json.loads(output(project, "doctor", "--json"))} >= {"store", "conditional writes"}
    assert "would remove" in output(project, "gc", "--dry-run")
    assert {f["check"] for f in json.loads(output(project, "doctor", "--json"))} >= {
        "image_encoder",
        "vlm",
        "benchmarks.held_out",
    }
    shown = json.loads(output(project, "config", "show", "--json"))
    assert shown["name"] == "small"
    assert "base_dir" not in shown


def test_config_show_is_a_project_file(project):
    again = project.with_name("again.yaml")
    again.write_text(output(project, "config", "show"))
    assert load_project(again) == load_project(project)


def test_missing_project_file_is_one_message(tmp_path):
    error = raised(tmp_path / "none.yaml", "check")
    assert isinstance(error, ConfigError)
    assert "vsel init" in str(error)


def test_entry_point_prints_errors_without_a_traceback(tmp_path):
    import subprocess
    import sys

    code = "from vsel_platform.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "check"],
        env=os.environ | {"VSEL_PROJECT": str(tmp_path / "none.yaml"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
