"""Methods by name: parts can be exchanged, options find their part, and what is wrong is said before anything runs."""

import pytest

from vsel_platform.config import parse_project
from vsel_platform.errors import ConfigError
from vsel_platform.methods.describe import as_text, describe
from vsel_platform.methods.presets import METHODS, QUOTAS, RULES, SCORES
from vsel_platform.methods.registry import check_recipes, composition, find_method, method_names, needs_of, scores_of
from vsel_platform.project import open_project

OWN = """
import numpy as np
from vsel_platform.methods.api import Method, Options, Score, ScoreTable

class LengthOptions(Options):
    power: float = 1.0

def length(signals, options):
    return ScoreTable(signals.n_characters ** options.power)

METHOD = Method("anything", Score("length", length, "Length.", options=LengthOptions), quota="task")
"""


# For the score that compares images with texts.
JOINT = {name: {"model": "clip", "feature": "joint"} for name in ("image_encoder", "text_encoder")}


def project(recipes, *, methods=None, base_dir=".", **settings):
    values = {
        "name": "p",
        "datasets": {"d": {"source": "x.json"}, "e": {"source": "y.json"}},
        "recipes": {name: {"dataset": "d", **recipe} for name, recipe in recipes.items()},
        "methods": methods or {},
        **settings,
    }
    return parse_project(str(values), base_dir=str(base_dir))


def composed(recipe, **options):
    found = project({"r": recipe}, **options)
    return composition(found, found.recipe("r"))


def test_every_method_names_parts_that_exist():
    for method in METHODS.values():
        assert method.score in SCORES
        assert method.quota in QUOTAS
        assert method.diversity in RULES
        assert composed({"method": method.name}, second_vlm={"model": "other"}, **JOINT).variant == "default"


@pytest.mark.parametrize("mode", ["default", "released"])
def test_free2ds_needs_a_second_model(mode):
    recipe = {"method": "free2ds", "mode": mode}
    with pytest.raises(ConfigError, match=r"score free2ds\w* requires the other model .* as `second_vlm`"):
        check_recipes(project({"r": recipe}))
    check_recipes(project({"r": recipe}, second_vlm={"model": "other"}))


def test_parts_can_be_exchanged():
    found = composed({"method": "el2n", "quota": "equal_tasks", "diversity": "gumbel"})
    assert (found.score.name, found.quota.name, found.diversity.name) == ("el2n", "equal_tasks", "gumbel")
    assert composed({"method": "compose", "score": "vig"}).score.name == "vig"


def test_options_find_the_part_that_knows_them():
    found = composed({"method": "perplexity", "diversity": "gumbel", "options": {"prefer": "low", "temperature": 2}})
    assert found.score_options.prefer == "low"
    assert found.diversity_options.temperature == 2


def test_only_options_of_the_score_make_a_variant_of_its_table():
    plain = composed({"method": "perplexity", "diversity": "gumbel"})
    warm = composed({"method": "perplexity", "diversity": "gumbel", "options": {"temperature": 2}})
    low = composed({"method": "perplexity", "options": {"prefer": "low"}})
    assert plain.variant == warm.variant == "default"
    assert low.variant not in ("default", composed({"method": "perplexity", "options": {"prefer": "middle"}}).variant)
    assert plain.settings_fingerprint != warm.settings_fingerprint


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"method": "presle"}, "method 'presle' is unknown; known: .*presel"),
        ({"method": "presel", "options": {"foo": 1}}, "method presel: options: foo"),
        ({"method": "presel", "options": {"n_neighbours": 0}}, "n_neighbours"),
        ({"method": "random", "options": {"foo": 1}}, "method random: options: foo"),
        ({"method": "random", "quota": "task"}, "random has no quota to exchange"),
        ({"method": "visnec", "options": {"foo": 1}}, r"unknown options \['foo'\]; known: .*max_gain"),
        ({"method": "visnec", "mode": "released"}, "has no mode `released`"),
        ({"method": "visnec", "score": "nothing"}, "score 'nothing' is unknown; known: .*el2n"),
        ({"method": "visnec", "quota": "nothing"}, "quota 'nothing' is unknown"),
        ({"method": "visnec", "diversity": "nothing"}, "diversity 'nothing' is unknown"),
        ({"method": "compose"}, "score '' is unknown"),
        ({"method": "perplexity", "options": {"prefer": "odd"}}, "prefer"),
    ],
)
def test_what_is_wrong_with_a_recipe_is_said(recipe, message):
    with pytest.raises(ConfigError, match=message) as error:
        check_recipes(project({"good": {"method": "presel"}, "wrong": recipe}))
    assert "recipes.wrong" in str(error.value)
    assert "recipes.good" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, None),
        ({"image_encoder": {"model": "clip"}}, "feature: joint"),
        ({"text_encoder": {"model": "clip"}}, "feature: joint"),
        (
            {"image_encoder": {"model": "siglip", "feature": "joint"}},
            r"one checkpoint.*\(siglip, None\).*\(clip, None\)",
        ),
        ({"text_encoder": {"model": "clip", "feature": "joint", "revision": "abc"}}, r"\(clip, None\).*\(clip, abc\)"),
    ],
)
@pytest.mark.parametrize("recipe", [{"method": "clip_score"}, {"method": "compose", "score": "clip_score"}])
def test_what_a_score_requires_of_the_project_file_is_checked(recipe, changes, message):
    found = project({"good": {"method": "vig"}, "r": recipe}, **JOINT | changes)
    if message is None:
        check_recipes(found)
        assert needs_of(found, found.recipe("r")) == ["image_embeddings", "text_embeddings"]
        return
    with pytest.raises(ConfigError, match=rf"recipes\.r: score clip_score requires .*{message}.* in the project file"):
        check_recipes(found)


def test_a_project_file_is_checked_when_it_is_opened(tmp_path):
    file = tmp_path / "vsel.yaml"
    file.write_text("{name: p, datasets: {d: {source: x}}, recipes: {r: {dataset: d, method: presle}}}")
    with pytest.raises(ConfigError, match="presle"):
        open_project(file)


def test_a_project_s_own_file_is_a_method(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    options = {"methods": {"mine": "own.py"}, "base_dir": tmp_path}
    found = composed({"method": "mine", "options": {"power": 2}}, **options)
    assert (found.method.name, found.score.name, found.quota.name) == ("mine", "length", "task")
    assert found.score_options.power == 2
    assert "mine" in method_names(project({}, **options))
    using = project({"r": {"method": "mine"}}, **options)
    assert list(scores_of(using, using.recipes.values())) == ["length"]


def test_a_changed_file_is_another_variant(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    options = {"methods": {"mine": "own.py"}, "base_dir": tmp_path}
    before = composed({"method": "mine"}, **options)
    (tmp_path / "own.py").write_text(OWN + "\n# changed\n")
    after = composed({"method": "mine"}, **options)
    assert before.variant != after.variant
    assert before.settings_fingerprint != after.settings_fingerprint


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "cannot be read"), ("1 / 0", "ZeroDivisionError"), ("METHOD = 1", "expected METHOD"), ("x = 1", "METHOD")],
)
def test_a_wrong_file_is_named(tmp_path, text, message):
    if text is not None:
        (tmp_path / "own.py").write_text(text)
    with pytest.raises(ConfigError, match=message):
        find_method(project({}, methods={"mine": "own.py"}, base_dir=tmp_path), "mine")


def test_a_failing_file_is_told_with_its_line_and_keeps_its_traceback(tmp_path):
    (tmp_path / "own.py").write_text("a = 1\n\n1 / 0\n")
    options = {"methods": {"mine": "own.py"}, "base_dir": tmp_path}
    with pytest.raises(ConfigError, match=r"methods\.mine: the file fails at .*own\.py, line 3: ZeroDivision") as error:
        check_recipes(project({"r": {"method": "mine"}}, **options))
    assert "VSEL_TRACEBACK=1" in str(error.value)
    assert isinstance(error.value.__cause__.__cause__, ZeroDivisionError)


def test_needs_are_those_of_all_parts():
    found = project({"r": {"method": "scalselect"}, "p": {"method": "presel"}, "x": {"method": "random"}})
    assert needs_of(found, found.recipe("r")) == ["representation_moments", "vision_representations"]
    assert needs_of(found, found.recipe("p")) == ["image_embeddings"]
    assert needs_of(found, found.recipe("x")) == []


def test_variants_of_one_score_are_listed_once_each():
    recipes = {
        "a": {"method": "perplexity"},
        "b": {"method": "perplexity", "quota": "task"},
        "c": {"method": "perplexity", "options": {"prefer": "low"}},
    }
    found = project(recipes)
    assert [len(scores_of(found, found.recipes.values())[name]) for name in ("perplexity",)] == [2]


def test_the_list_tells_every_method_and_option():
    text = as_text(describe(None))
    for name in (*METHODS, *SCORES, *QUOTAS, *RULES, "presel", "random", "n_neighbours", "temperature"):
        assert name in text
