"""leaderboard, upload, lmms-export, lmms-import on a small project that was trained once."""

import json
import re

import pytest
from small_project import write_small_project
from typer.testing import CliRunner

from vsel_platform.cli import deployment, evaluation, recipes  # noqa: F401  (it registers `run`)
from vsel_platform.cli.app import app, open_context
from vsel_platform.errors import ConfigError, EvaluationError

RECIPES = {"random": {"dataset": "shapes", "method": "random", "budget": {"rows": 8}}}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    directory = tmp_path_factory.mktemp("evaluated")
    questions = directory / "questions.jsonl"
    lines = [{"question_id": i, "text": f"Say {i}.", "answers": [str(i)], "category": "count"} for i in range(3)]
    questions.write_text("".join(json.dumps(line) + "\n" for line in lines))
    pope = directory / "pope"
    pope.mkdir()
    for name in ("random", "popular", "adversarial"):
        asked = [
            {"question_id": i, "image": f"count/{200 + 3 * i}.png", "text": "Is there a dog?", "label": label}
            for i, label in enumerate(("yes", "no"))
        ]
        (pope / f"coco_pope_{name}.json").write_text("".join(json.dumps(line) + "\n" for line in asked))
    file = write_small_project(directory, tmp_path_factory.mktemp("models"), recipes=RECIPES)
    text = file.read_text().replace(
        "benchmarks:\n",
        "benchmarks:\n"
        f"  own: {{format: jsonl, questions: {questions}, max_new_tokens: 4, options: {{upload: mmvet}}}}\n"
        f"  pope: {{format: pope, questions: {pope}, image_root: {directory / 'images'}, max_new_tokens: 4}}\n",
    )
    file.write_text(text)
    result = invoke(file, "run", "random", "--engine", "--train")
    assert result.exit_code == 0, (result.output, result.exception)
    return file


def invoke(file, *arguments):
    return CliRunner().invoke(app, list(arguments), env={"VSEL_PROJECT": str(file), "COLUMNS": "200"})


def output(file, *arguments):
    result = invoke(file, *arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def test_the_leaderboard_is_printed_as_a_table_as_json_and_as_a_page(project, tmp_path):
    assert "| random |" in output(project, "leaderboard", "held_out")
    boards = json.loads(output(project, "leaderboard", "held_out", "--json"))
    assert [(board["dataset"], board["measure"]) for board in boards] == [("shapes", "exact_match"), ("shapes", "loss")]
    assert [row["earlier"] for board in boards for row in board["rows"]] == [[], []]
    page = tmp_path / "page.html"
    output(project, "leaderboard", "held_out", "--page", str(page))
    text = page.read_text()
    assert "<h1>Leaderboard: held_out</h1>" in text
    assert 0 < text.index(">Exact match</h2>") < text.index(">Loss</h2>")


def test_rows_name_their_recipes_of_an_earlier_state():
    board = {"measure": "loss", "rows": ({"label": "a", "recipes": ("x", "y")}, {"label": "b", "recipes": ("z",)})}
    marked = evaluation._marked(board, ["y"])
    assert [(row["label"], row["earlier"]) for row in marked["rows"]] == [("a", ["y"]), ("b", [])]
    assert marked["measure"] == "loss"


def test_a_leaderboard_of_nothing_says_what_to_do(tmp_path_factory):
    file = write_small_project(tmp_path_factory.mktemp("empty"), tmp_path_factory.mktemp("models"), recipes=RECIPES)
    error = invoke(file, "leaderboard", "held_out").exception
    assert isinstance(error, EvaluationError) and "vsel run --train" in str(error)
    assert isinstance(invoke(file, "leaderboard", "none").exception, ConfigError)


def test_upload_writes_the_server_s_files(project, tmp_path):
    output(project, "upload", "own", "random", "--to", str(tmp_path / "up"))
    stored = json.loads((tmp_path / "up" / "mm-vet.json").read_text())
    assert set(stored) == {"v1_0", "v1_1", "v1_2"}
    error = invoke(project, "upload", "held_out", "random", "--to", str(tmp_path / "none")).exception
    assert isinstance(error, EvaluationError) and "no server" in str(error)


def test_answers_of_another_state_are_not_given_away(project, tmp_path):
    settings = "(the base model, or files or settings of the benchmark, are others)"
    for name in ("random", "base"):
        changed = changed_copy(project, "max_new_tokens: 4", "max_new_tokens: 5")
        for command, benchmark in (("upload", "own"), ("lmms-export", "pope")):
            error = invoke(changed, command, benchmark, name, "--to", str(tmp_path / command)).exception
            assert isinstance(error, EvaluationError), error
            assert f"no answers of {name}, as it is now, to {benchmark} {settings}; run `vsel run" in str(error)
    assert list(tmp_path.iterdir()) == []


def test_what_changed_since_the_answers_were_given_is_named(project, tmp_path):
    questions = project.with_name("other.jsonl")
    lines = [json.loads(line) for line in project.with_name("questions.jsonl").read_text().splitlines()]
    lines[0]["answers"] = ["zero"]
    questions.write_text("".join(json.dumps(line) + "\n" for line in lines))
    changed = changed_copy(project, str(project.with_name("questions.jsonl")), str(questions))
    error = invoke(changed, "upload", "own", "base", "--to", str(tmp_path)).exception
    assert "to own (1 of 3 questions are others); run" in str(error)
    images = f"{project.parent / 'images'}, max_new"
    moved = changed_copy(project, images, images.replace("images", "elsewhere"))
    error = invoke(moved, "lmms-export", "pope", "random", "--to", str(tmp_path / "x")).exception
    assert "to pope (the pictures of 6 of 6 questions are others); run" in str(error)


@pytest.mark.parametrize("command", ["upload", "lmms-export"])
def test_a_name_that_nobody_has_is_refused_with_the_known_ones(project, tmp_path, command):
    error = invoke(project, command, "pope", "nope", "--to", str(tmp_path / "x")).exception
    assert isinstance(error, EvaluationError)
    assert "'nope' is no recipe, and no answers to pope were imported" in str(error)
    assert "known: base, random" in str(error)


def changed_copy(project, old, new):
    """A project file beside `project`, with the same store."""
    text = project.read_text()
    assert old in text
    file = project.with_name("changed.yaml")
    file.write_text(text.replace(old, new))
    return file


def test_a_part_of_the_questions_is_not_uploaded(project, tmp_path):
    part = changed_copy(project, "format: jsonl,", "format: jsonl, rows: 2,")
    assert invoke(part, "run", "random", "--engine", "--train").exit_code == 0
    error = invoke(part, "upload", "own", "random", "--to", str(tmp_path / "up")).exception
    assert "benchmarks.own.rows leaves 1 questions out" in str(error)
    assert isinstance(error, EvaluationError)
    whole = changed_copy(project, "format: jsonl,", "format: jsonl, rows: 3,")
    assert invoke(whole, "run", "random", "--engine", "--train").exit_code == 0
    output(whole, "upload", "own", "random", "--to", str(tmp_path / "up"))
    assert invoke(project, "run", "random", "--engine", "--train").exit_code == 0


def test_answers_go_to_lmms_eval_and_come_back(project, tmp_path):
    log = tmp_path / "samples.jsonl"
    assert "6 answers" in output(project, "lmms-export", "pope", "random", "--to", str(log))
    told = output(project, "lmms-import", "pope", str(log), "--as", "elsewhere")
    first, headline, *_ = told.splitlines()
    assert first == "elsewhere: answers to 6 of 6 questions of pope"
    assert re.fullmatch(r"f1 \d+\.\d % \(\d+\.\d to \d+\.\d\)", headline)
    assert "warning" not in told
    ctx = open_context(project)
    own, other = (
        ctx.store.read_partition("answers", {"recipe": name, "benchmark": "pope"}, ["question_id", "answer", "score"])
        for name in ("random", "elsewhere")
    )
    assert own.sort_by("question_id").to_pylist() == other.sort_by("question_id").to_pylist()


def test_questions_that_an_imported_file_leaves_out_are_told(project, tmp_path):
    log, part = tmp_path / "samples.jsonl", tmp_path / "part.jsonl"
    output(project, "lmms-export", "pope", "base", "--to", str(log))
    part.write_text("".join(log.read_text().splitlines(keepends=True)[:2]))
    told = output(project, "lmms-import", "pope", str(part), "--as", "part").splitlines()
    assert told[0] == "part: answers to 2 of 6 questions of pope"
    assert "warning: 4 of 6 questions have no answer in the file; they count as wrong" in told
    output(project, "lmms-export", "pope", "part", "--to", str(tmp_path / "again.jsonl"))
    error = invoke(project, "upload", "pope", "nope", "--to", str(tmp_path / "x")).exception
    known = str(error).partition("known: ")[2].split(", ")
    assert known[:2] == ["base", "random"] and "part" in known


def test_evidence_goes_on_chunk_by_chunk_and_ends_with_the_leaderboard(project, tmp_path, monkeypatch):
    driven, shown = [], []
    monkeypatch.setattr("vsel_platform.demo.evidence.write_project", lambda directory, text: directory / "vsel.yaml")
    monkeypatch.setattr(deployment, "run_in_dagster", lambda file, names, *, train: driven.append((names, train)) or 0)
    monkeypatch.setattr(evaluation, "leaderboard", lambda *arguments: shown.append(arguments))
    told = output(project, "evidence", "--directory", str(tmp_path), "--methods", "presel,ccs", "--seeds", "2")
    assert "19 trainings" in told
    assert [len(names) for names, _ in driven] == [11, 4, 4]
    assert all(train for _, train in driven)
    assert shown == [("held_out", tmp_path / "vsel.yaml", tmp_path / "leaderboard.html")]


def test_evidence_that_stops_says_how_to_go_on(project, tmp_path, monkeypatch):
    monkeypatch.setattr("vsel_platform.demo.evidence.write_project", lambda directory, text: directory / "vsel.yaml")
    monkeypatch.setattr(deployment, "run_in_dagster", lambda file, names, *, train: 4)
    error = invoke(project, "evidence", "--directory", str(tmp_path)).exception
    assert isinstance(error, EvaluationError) and "goes on from here" in str(error)
