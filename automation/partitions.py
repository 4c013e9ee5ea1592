"""The three one-dimensional partition sets."""

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
shards = dg.DynamicPartitionsDefinition(name=SHARDS)


def dataset_to_recipes() -> dg.PartitionMapping:
    """Each recipe depends on its own dataset only."""
    mapping: dict[str, list[str]] = {name: [] for name in loaded_project().datasets}
    for name, recipe in loaded_project().recipes.items():
        mapping[recipe.dataset].append(name)
    return dg.StaticPartitionMapping({dataset: set(names) for dataset, names in mapping.items() if names})
