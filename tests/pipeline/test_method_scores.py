"""Scores as tables: each set of options once, missing ones NULL and counted, stale after what they depend on."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from small_project import small_rows, text_row

from vsel_platform.errors import NotMaterializedError, SelectionError
from vsel_platform.methods.api import ScoreTable
from vsel_platform.methods.registry import composition
from vsel_platform.pipeline import method_scores
from vsel_platform.pipeline.method_signals import StoreSignals
from vsel_platform.pipeline.plan import next_steps
from vsel_platform.pipeline.quality import check_published

OWN = """
import numpy as np
from vsel_platform.methods.api import Method, Options, Score, ScoreTable
from vsel_platform.tables import Column

class LengthOptions(Options):
    power: float = 1.0
    shortest: int = 0

def length(signals, options):
    n = signals.n_characters.astype(float)
    score = np.where(n < options.shortest, np.nan, n ** options.power)
    score[n == n.max()] = np.inf
    return ScoreTable(score, {"characters": n, "half": np.where(n > 20, n / 2, np.nan)}, [f"power {options.power:g}"])

COLUMNS = (Column("characters", "float64", "Length.", "1"), Column("half", "float64", "Half of it.", "1", True))
METHOD = Method("own", Score("length", length, "Length.", options=LengthOptions, columns=COLUMNS))
"""
ROW = {"dataset": "shapes", "budget": {"rows": 12}, "method": "own"}
RECIPES = {"one": ROW, "same": ROW | {"quota": "task"}, "squared": ROW | {"options": {"power": 2.0, "shortest": 25}}}
NAMES = list(RECIPES)
N_ROWS = 96


@pytest.fixture
def project(make_project):
    """A project whose rows are stored, with a method of its own that needs no model."""
    project = make_project("scored")
    (project.directory / "own.py").write_text(OWN)
    project.drive(["random"])
    return project


def context(project, **recipes):
    return project.context({"recipes": RECIPES | recipes, "methods": {"own": str(project.directory / "own.py")}})


def notes(ctx):
    """The notes of all stored scores."""
    return [note for p in ctx.store.pointers(method_scores.TABLE) for note in p.metadata["notes"]]


def table_of(ctx, recipe):
    key = method_scores.partition("shapes", composition(ctx.project, ctx.project.recipe(recipe)))
    return ctx.store.read_partition(method_scores.TABLE, key).to_pylist()


def test_recipes_with_the_same_options_share_their_scores(project):
    ctx = context(project)
    assert [m.score_options.power for m in method_scores.variants(ctx, "length", "shapes")] in ([1, 2], [2, 1])
    result = method_scores.run(ctx, "length", "shapes")
    assert (result.stage, result.rows, result.computed, result.reused) == ("length_scores", N_ROWS, 2 * N_ROWS, 0)
    assert len(list(ctx.store.pointers(method_scores.TABLE))) == 2
    assert sorted(notes(ctx)) == ["power 1", "power 2"]
    assert sorted(result.metadata["notes"].split("; ")) == ["power 1", "power 2"]
    assert method_scores.is_current(ctx, "length", "shapes")


def test_missing_and_infinite_scores_are_null_and_counted(project):
    ctx = context(project)
    result = method_scores.run(ctx, "length", "shapes")
    one, squared = table_of(ctx, "one"), table_of(ctx, "squared")
    lengths = [json.loads(r["details"])["characters"] for r in one]
    for found, shortest, power in ((one, 0, 1), (squared, 25, 2)):
        expected = [None if n < shortest or n == max(lengths) else n**power for n in lengths]
        assert [r["value"] for r in found] == expected
    missing = sum(r["value"] is None for r in one + squared)
    assert result.failed == result.metadata["rows_without_score"] == missing > 2
    assert [json.loads(r["details"])["half"] for r in one] == [n / 2 if n > 20 else None for n in lengths]
    for pointer in ctx.store.pointers(method_scores.TABLE):
        assert all(outcome.passed for outcome in check_published(ctx, pointer))


def test_a_second_run_computes_nothing_and_counts_the_same(project):
    ctx = context(project)
    first = method_scores.run(ctx, "length", "shapes")
    before = [pointer.reference for pointer in ctx.store.pointers(method_scores.TABLE)]
    again = method_scores.run(ctx, "length", "shapes")
    assert (again.computed, again.reused) == (0, 2 * N_ROWS)
    assert (again.failed, again.metadata, again.data_version) == (first.failed, first.metadata, first.data_version)
    assert [pointer.reference for pointer in ctx.store.pointers(method_scores.TABLE)] == before


def test_new_options_are_computed_and_the_others_left(project):
    method_scores.run(context(project), "length", "shapes")
    ctx = context(project, third=ROW | {"options": {"power": 3.0}})
    assert not method_scores.is_current(ctx, "length", "shapes")
    result = method_scores.run(ctx, "length", "shapes")
    assert (result.computed, result.reused) == (N_ROWS, 2 * N_ROWS)
    assert sorted(notes(ctx)) == ["power 1", "power 2", "power 3"]


def test_scores_are_stale_after_new_rows_and_a_changed_file_and_nothing_else(project):
    method_scores.run(context(project), "length", "shapes")
    for changes in ({"budget": {"rows": 9}}, {"diversity": "gumbel"}, {"seed": 4}, {"text_policy": "none"}):
        assert method_scores.is_current(context(project, one=ROW | changes), "length", "shapes")
    before = method_scores.want(context(project), "length", "shapes")
    (project.directory / "own.py").write_text(OWN + "\n# changed\n")
    assert {step.asset for step in next_steps(context(project), NAMES)} == {"length_scores"}
    assert method_scores.want(context(project), "length", "shapes") != before
    (project.directory / "own.py").write_text(OWN)
    project.write([*small_rows(), text_row(77)])
    project.drive(["random"])
    ctx = context(project)
    assert not method_scores.is_current(ctx, "length", "shapes")
    assert method_scores.run(ctx, "length", "shapes").computed == 2 * (N_ROWS + 1)


def test_another_version_of_a_score_is_another_state(project):
    ctx = context(project)
    (method, _) = method_scores.variants(ctx, "length", "shapes")
    newer = replace(method, score=replace(method.score, version="2"))
    assert (
        method_scores.inputs(ctx, "shapes", newer).fingerprint
        != method_scores.inputs(ctx, "shapes", method).fingerprint
    )


def test_a_score_that_nobody_uses_is_nothing_to_run(project):
    ctx = context(project)
    result = method_scores.run(ctx, "el2n", "shapes")
    assert (result.rows, result.data_version, result.references) == (0, "none", [])
    assert method_scores.is_current(ctx, "el2n", "shapes")


@pytest.mark.parametrize(
    ("recipe", "missing"),
    [
        ({"method": "el2n"}, "losses"),
        ({"method": "prism"}, "vision_representations"),
        ({"method": "semdedup"}, "clusters"),
        ({"method": "scalselect"}, "representation_moments|vision_representations"),
    ],
)
def test_a_signal_that_is_missing_is_named(project, recipe, missing):
    ctx = project.context({"recipes": {"r": {"dataset": "shapes", "budget": {"rows": 5}, **recipe}}})
    with pytest.raises(NotMaterializedError, match=missing):
        method_scores.run(ctx, composition(ctx.project, ctx.project.recipe("r")).score.name, "shapes")


def test_before_anything_is_stored_the_dataset_is_what_is_missing(make_project):
    project = make_project("nothing")
    (project.directory / "own.py").write_text(OWN)
    with pytest.raises(NotMaterializedError, match="manifest"):
        method_scores.run(context(project), "length", "shapes")


def test_columns_of_any_kind_are_plain_values(project):
    ctx = context(project)
    (method, _) = method_scores.variants(ctx, "length", "shapes")
    signals = StoreSignals(ctx, method_scores.source_pointers(ctx, "shapes", method))
    words = np.full(N_ROWS, "word", object)
    words[0] = None
    half = np.full(N_ROWS, 0.5, np.float32)
    half[1] = -np.inf
    table = method_scores.score_table(
        signals, method, ScoreTable(np.zeros(N_ROWS), {"characters": words, "half": half})
    )
    first, second = (json.loads(text) for text in table["details"].to_pylist()[:2])
    assert first == {"characters": None, "half": 0.5}
    assert second == {"characters": "word", "half": None}
    assert table["sample_id"].to_pylist() == sorted(table["sample_id"].to_pylist())
    zeros = np.zeros(N_ROWS)
    for found, words in (
        (ScoreTable(zeros, {"half": half}), "gives no columns ['characters'], which its Score(columns=...) declares"),
        (ScoreTable(zeros, {"half": half, "characters": half, "more": half}), "gives the columns ['more'], which its"),
        (ScoreTable(zeros, {"half": half[1:], "characters": half}), "gives 95 values in column half for 96 rows"),
        (ScoreTable(zeros[:3]), "score length gives 3 scores for 96 rows; give one for every row, NaN"),
    ):
        with pytest.raises(SelectionError, match=re.escape(words)):
            method_scores.score_table(signals, method, found)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return {}['x']", r"score length of method own fails at .*own.py, line 11: KeyError: 'x'. VSEL_TRACEBACK=1"),
        ("return signals.n_characters", r"score length gives ndarray, not ScoreTable\(scores\)"),
        ("import json; json.loads('{')", r"score length of method own fails at .*own.py, line 11: JSONDecodeError: "),
    ],
)
def test_a_failing_score_of_the_projects_own_is_told_with_its_line(project, body, message):
    line = "    n = signals.n_characters.astype(float)"
    assert OWN.split("\n")[10] == line
    (project.directory / "own.py").write_text(OWN.replace(line, f"    {body}"))
    with pytest.raises(SelectionError, match=message):
        method_scores.run(context(project), "length", "shapes")


def test_a_fault_of_the_platforms_own_scores_is_not_called_one_of_the_project(project, monkeypatch):
    ctx = context(project)
    (method, _) = method_scores.variants(ctx, "length", "shapes")
    broken = replace(method.score, compute=lambda signals, options: {}["x"])
    monkeypatch.setitem(method_scores.SCORES, "length", broken)
    with pytest.raises(KeyError):
        method_scores._computed(None, replace(method, score=broken))
