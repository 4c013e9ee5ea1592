"""A small project that is driven to the end once. Tests read it as it is, or change a copy of it."""

import copy
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_project import project_values, row, small_rows, write_rows

from vsel_platform.config import parse_project
from vsel_platform.pipeline.context import Context, StageResult
from vsel_platform.pipeline.drive import drive


@dataclass(frozen=True)
class SmallProject:
    """A project's files in `directory` and the values of its project file; pictures lie in `pictures`."""

    directory: Path
    pictures: Path
    values: dict[str, Any]

    def context(self, changes: dict[str, Any] | None = None) -> Context:
        """The project with some settings replaced, by dotted key."""
        values = json.loads(json.dumps(self.values))  # two settings may be the same object
        for key, value in (changes or {}).items():
            *path, last = key.split(".")
            place = values
            for name in path:
                place = place.setdefault(name, {})
            place[last] = copy.deepcopy(value)  # a later change may lie inside it
        return Context(parse_project(yaml.safe_dump(values), base_dir=str(self.directory)))

    def write(self, rows: list[Any]) -> None:
        """Replace the source, drawing the pictures that are new."""
        write_rows(self.pictures, rows, f"{self.directory.name}.json").rename(self.directory / "rows.json")

    def drive(
        self, recipes: list[str], changes: dict[str, Any] | None = None, *, train: bool = False
    ) -> list[StageResult]:
        """Bring recipes up to date and return what was run."""
        return drive(self.context(changes), recipes, train=train, log=lambda _: None)


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def make_project(tmp_path_factory, models) -> Callable[[str], SmallProject]:
    """Makes projects with an empty store."""

    def make(name: str) -> SmallProject:
        directory = tmp_path_factory.mktemp(name)
        write_rows(directory, small_rows())
        write_rows(directory, [row(i) for i in range(200, 206)], "held_out.json")
        return SmallProject(directory, directory, project_values(directory, models))

    return make


@pytest.fixture(scope="session")
def finished(make_project):
    """Driven to the end, evaluation included. Nothing may change it."""
    project = make_project("finished")
    project.drive(["presel", "random"], train=True)
    return project


@pytest.fixture(scope="session")
def ctx(finished):
    return finished.context()


def moved(finished: SmallProject, directory: Path) -> SmallProject:
    """The same project with source and store in another directory."""
    values = copy.deepcopy(finished.values) | {"store": str(directory / "store")}
    values["datasets"]["shapes"]["source"] = str(directory / "rows.json")
    shutil.copy(finished.directory / "rows.json", directory)
    return SmallProject(directory, finished.pictures, values)


@pytest.fixture
def copied(finished, tmp_path):
    """A copy that may be changed."""
    shutil.copytree(finished.directory / "store", tmp_path / "store")
    return moved(finished, tmp_path)


@pytest.fixture
def fresh(finished, tmp_path):
    """The same project with an empty store."""
    return moved(finished, tmp_path)


@pytest.fixture(scope="session")
def selected(ctx) -> Callable[[str], list[dict[str, Any]]]:
    """Rows that a recipe of the finished project selected, in rank order."""
    return lambda recipe: ctx.store.read_partition("selected_subset", {"recipe": recipe}).to_pylist()
