"""The one-dimensional partition sets."""

from functools import cache

import dagster as dg

from resources.project import project_file
from vsel_platform.config import Project
from vsel_platform.project import open_project

SHARDS = "shards"


@cache
def loaded_project() -> Project:
    """The project file as it was when the code location was loaded: it names datasets and recipes."""
    return open_project(project_file())


datasets = dg.StaticPartitionsDefinition(list(loaded_project().datasets))
recipes = dg.StaticPartitionsDefinition(list(loaded_project().recipes) or ["none"])
# A recipe that is not trained has no place here: it would count as missing for ever.
trained_recipes = dg.StaticPartitionsDefinition(
    [name for name, recipe in loaded_project().recipes.items() if recipe.train] or ["none"]
)
shards = dg.DynamicPartitionsDefinition(name=SHARDS)


def dataset_to_recipes() -> dg.PartitionMapping:
    """Each recipe depends on its own dataset only."""
    mapping: dict[str, list[str]] = {name: [] for name in loaded_project().datasets}
    for name, recipe in loaded_project().recipes.items():
        mapping[recipe.dataset].append(name)
    return dg.StaticPartitionMapping({dataset: set(names) for dataset, names in mapping.items() if names})


def recipes_to_trained() -> dg.PartitionMapping:
    """Each checkpoint depends on the selection of its own recipe."""
    recipes_that_train = (name for name, recipe in loaded_project().recipes.items() if recipe.train)
    return dg.StaticPartitionMapping({name: name for name in recipes_that_train})


def recipes_to_dataset() -> dg.PartitionMapping:
    """Each dataset depends on all of its recipes."""
    mapping = {name: recipe.dataset for name, recipe in loaded_project().recipes.items()}
    return dg.StaticPartitionMapping(mapping)
