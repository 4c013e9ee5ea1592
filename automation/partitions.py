"""The one-dimensional partition sets."""

from functools import cache

import dagster as dg

from resources.project import project_file
from vsel_platform.config import Project
from vsel_platform.pipeline.benchmarks import evaluation_key
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
_TRAINED = [name for name, recipe in loaded_project().recipes.items() if recipe.train]
_BENCHMARKS = list(loaded_project().benchmarks)
benchmarks = dg.StaticPartitionsDefinition(_BENCHMARKS or ["none"])
evaluations = dg.StaticPartitionsDefinition(
    [evaluation_key(name, benchmark) for name in _TRAINED for benchmark in _BENCHMARKS] or ["none"]
)
challengers = dg.StaticPartitionsDefinition(
    [name for name in _TRAINED if loaded_project().recipe(name).training.champion] or ["none"]
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


def recipes_to_evaluations() -> dg.PartitionMapping:
    """Each evaluation depends on the checkpoint of its own recipe."""
    return dg.StaticPartitionMapping({n: {evaluation_key(n, b) for b in _BENCHMARKS} for n in _TRAINED if _BENCHMARKS})


def benchmarks_to_evaluations(*, reverse: bool = False) -> dg.PartitionMapping:
    """Each evaluation depends on that of the base model on its own benchmark; or the other way round."""
    if reverse:
        return dg.StaticPartitionMapping({evaluation_key(n, b): b for n in _TRAINED for b in _BENCHMARKS})
    return dg.StaticPartitionMapping({b: {evaluation_key(n, b) for n in _TRAINED} for b in _BENCHMARKS if _TRAINED})


def champions_to_challengers() -> dg.PartitionMapping:
    """Each ruling depends on the evaluations of the recipe and of its champion."""
    mapping: dict[str, set[str]] = {}
    for name in _TRAINED:
        champion = loaded_project().recipe(name).training.champion
        if champion is None:
            continue
        for one in (name, champion.recipe):
            mapping.setdefault(evaluation_key(one, champion.benchmark), set()).add(name)
    return dg.StaticPartitionMapping(mapping)


def recipes_to_dataset() -> dg.PartitionMapping:
    """Each dataset depends on all of its recipes."""
    mapping = {name: recipe.dataset for name, recipe in loaded_project().recipes.items()}
    return dg.StaticPartitionMapping(mapping)
