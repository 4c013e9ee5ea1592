"""Everything that a recipe can name is listed with its options, for people and for programs."""

import json
from types import SimpleNamespace

import pytest

from vsel_platform.config import parse_project
from vsel_platform.errors import ConfigError
from vsel_platform.methods import describe as describing
from vsel_platform.methods.api import Method, Options, Score, ScoreTable
from vsel_platform.methods.describe import as_text, describe
from vsel_platform.methods.presets import METHODS, OWN_PIPELINE, QUOTAS, RULES, SCORES

OWN = """
from pydantic import Field
from vsel_platform.methods.api import Method, Options, Score, ScoreTable

class LengthOptions(Options):
    power: float = Field(1.5, description="Power of the length.")
    unit: str = Field(description="What is counted.")
    parts: list[str] = Field(default_factory=list, description="Parts that count.")

def length(signals, options):
    return ScoreTable(signals.n_characters ** options.power)

METHOD = Method(
    "anything", Score("length", length, "Length.", options=LengthOptions), quota="task", paper="nobody's",
    deviation="None known.",
)
"""


def project(directory, methods):
    values = {"name": "p", "datasets": {"d": {"source": "x.json"}}, "recipes": {}, "methods": methods}
    return parse_project(str(values), base_dir=str(directory))


def named(found, kind):
    return {entry["name"]: entry for entry in found[kind]}


def test_every_method_and_part_is_listed_once_and_sorted():
    found = describe(None)
    for kind, names in (
        ("methods", {*METHODS, *OWN_PIPELINE}),
        ("scores", SCORES),
        ("quotas", QUOTAS),
        ("diversity", RULES),
    ):
        listed = [entry["name"] for entry in found[kind]]
        assert listed == sorted(names)


def test_options_have_their_defaults_and_a_meaning():
    found = describe(None)
    parts = [*found["scores"], *found["quotas"], *found["diversity"], named(found, "methods")["presel"]]
    for part in parts:
        for name, option in part["options"].items():
            assert set(option) == {"default", "description"}
            assert option["description"], (part["name"], name)
    assert named(found, "diversity")["dedup"]["options"]["max_cosine"]["default"] == 0.95


def test_scores_say_what_they_need_and_what_becomes_of_text_rows():
    found = named(describe(None), "scores")
    assert (found["visnec"]["needs"], found["visnec"]["text_only_rows"]) == (["base_losses"], "stratum")
    assert found["perplexity"]["text_only_rows"] == "scored"


def test_a_method_of_a_paper_names_paper_parts_and_what_differs():
    found = named(describe(None), "methods")["semdedup"]
    assert "2303.09540" in found["paper"]
    assert found["parts"] == "score prototypicality, quota none, diversity dedup"
    assert found["deviation"] == METHODS["semdedup"].deviation


def test_a_project_s_own_method_is_listed_with_its_score_s_options(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    found = describe(project(tmp_path, {"mine": "own.py"}))
    mine = named(found, "methods")["mine"]
    assert mine["parts"] == "score length, quota task, diversity top"
    assert {name: option["default"] for name, option in mine["options"].items()} == {
        "power": 1.5,
        "unit": "none, give one",
        "parts": [],
    }
    assert json.loads(json.dumps(found)) == found
    text = as_text(found)
    for words in ("mine", "[nobody's]", "differs: None known.", "power (default 1.5): Power of the length."):
        assert words in text


def test_a_project_s_method_stands_for_the_platform_s_of_the_same_name(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    found = describe(project(tmp_path, {"el2n": "own.py"}))
    assert named(found, "methods")["el2n"]["parts"].startswith("score length")


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "own.py").write_text("METHOD = 3")
    with pytest.raises(ConfigError, match=r"methods\.mine: .*own\.py"):
        describe(project(tmp_path, {"mine": "own.py"}))


def installed(monkeypatch, **methods):
    points = [SimpleNamespace(name=name, load=lambda method=method: method) for name, method in methods.items()]
    monkeypatch.setattr(describing, "entry_points", lambda group: points if group == "vsel_platform.methods" else [])


def test_methods_of_installed_packages_are_listed_too(monkeypatch):
    score = Score("luck", lambda signals, options: ScoreTable([]), "Luck.", options=Options)
    installed(monkeypatch, lucky=Method("lucky", score), el2n=Method("el2n", score))
    found = named(describe(None), "methods")
    assert found["lucky"]["parts"] == "score luck, quota none, diversity top"
    assert found["el2n"]["parts"].startswith("score el2n")  # the platform's comes first, as where it is used


def test_what_is_installed_and_no_method_is_named(monkeypatch):
    installed(monkeypatch, lucky=17)
    with pytest.raises(ConfigError, match="entry point lucky"):
        describe(None)


def test_the_text_has_a_line_for_everything():
    found = describe(None)
    lines = as_text(found).splitlines()
    for kind in ("methods", "scores", "quotas", "diversity"):
        for entry in found[kind]:
            assert any(line.split()[:1] == [entry["name"]] for line in lines), entry["name"]
    for heading in ("methods (a recipe's `method`", "scores (a recipe's `score`)", "quotas (a recipe's `quota`)"):
        assert any(line.startswith(heading) for line in lines)
    assert sum("needs: base_losses" in line for line in lines) >= 4
    assert not [line for line in lines if "(default None" in line or "(default True" in line]
    assert any("(default null): " in line for line in lines)


def test_columns_of_the_text_stand_below_each_other_whatever_the_names(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    name = "a_rather_long_name_of_a_method"
    lines = as_text(describe(project(tmp_path, {name: "own.py"}))).splitlines()
    assert {len(line) - len(line[2:].lstrip()) for line in lines if line.startswith("   ")} == {2 + len(name) + 1}
    named = [line for line in lines if line.startswith("  ") and line[2] != " "]
    assert all(line[2 + len(name)] == " " and line[3 + len(name)] != " " for line in named)
