"""Typing errors in a project file are told with the key that was probably meant, never in a library's words."""

import pytest

from vsel_platform.config import Project, parse_project
from vsel_platform.errors import ConfigError

MINIMAL = "name: p\ndatasets: {a: {source: a.json}}\n"


def refusal(text):
    with pytest.raises(ConfigError) as error:
        parse_project(text, base_dir="/project", origin="vsel.yaml")
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (MINIMAL + "recipe: {}\n", "recipe: unknown key; did you mean recipes? (known: name, store, datasets,"),
        (
            MINIMAL + "recipes: {r: {dataset: a, bugdet: {rows: 3}}}\n",
            "recipes.r.bugdet: unknown key; did you mean budget",
        ),
        (
            MINIMAL + "recipes: {r: {dataset: a, budget: {rowz: 3}}}\n",
            "recipes.r.budget.rowz: unknown key; did you mean rows? (known: rows, percent",
        ),
        (MINIMAL + "second_vlm: {modell: x}\n", "second_vlm.modell: unknown key; did you mean model?"),
        (MINIMAL + "training: {lora: {epoch: 3}}\n", "training.lora.epoch: unknown key; did you mean epochs?"),
        (MINIMAL + "zzz: 1\n", "zzz: unknown key (known: name, "),
        ("datasets: {a: {source: a.json}}\n", "name: is missing"),
        (MINIMAL + "recipes: {'../x': {dataset: a}}\n", "recipes.../x: is no name: letters"),
    ],
)
def test_a_wrong_key_is_told_with_the_known_ones(text, line):
    assert f"\n  {line}" in refusal(text)


def test_the_library_that_checks_is_not_heard():
    text = refusal(MINIMAL + "colour: red\nrecipes: {r: {dataset: a, budget: {rows: 3, percent: 5}}}\n")
    assert text.startswith("vsel.yaml: 2 problems\n")
    assert "\n  recipes.r.budget: give exactly one" in text
    text = refusal(MINIMAL + "recipes: {r: {dataset: b}}\n")
    assert text == "vsel.yaml: 1 problem\n  recipe 'r' names the unknown dataset 'b' (known: a)"


def test_keys_that_only_the_loader_sets_are_not_offered():
    text = refusal(MINIMAL + "basedir: x\n")
    assert "base_dir" not in text
    assert all(name in text for name in Project.model_fields if name != "base_dir")
