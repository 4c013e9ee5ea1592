"""Which models recipes use."""

import pytest

from vsel_platform.config import parse_project
from vsel_platform.errors import ConfigError
from vsel_platform.pipeline.used_models import used_models

PROJECT = parse_project(
    """
    name: p
    datasets: {a: {source: a.json}}
    image_encoder: {name: efficientnet_lite0}
    vlm: {model: "embedded:demo"}
    second_vlm: {model: "embedded:demo_second"}
    recipes:
      presel: {dataset: a}
      random: {dataset: a, method: random}
      untrained: {dataset: a, method: random, train: false}
      scalselect: {dataset: a, method: scalselect}
      free2ds: {dataset: a, method: free2ds}
    """,
    base_dir="/nowhere",
)


@pytest.mark.parametrize(
    ("recipes", "train", "keys"),
    [
        (["presel"], False, {"image_encoder", "vlm"}),
        (["random"], False, set()),
        (["random"], True, {"vlm"}),
        (["untrained"], True, set()),
        (["scalselect", "random"], False, {"vlm"}),
    ],
)
def test_models_are_those_that_the_recipes_load(recipes, train, keys):
    assert {found.key for found in used_models(PROJECT, recipes, train=train)} == keys


def test_free2ds_reads_two_models():
    assert {found.key for found in used_models(PROJECT, ["free2ds"])} >= {"vlm", "second_vlm"}


def test_an_unknown_recipe_is_refused():
    with pytest.raises(ConfigError, match="unknown recipe"):
        used_models(PROJECT, ["nothing"])
