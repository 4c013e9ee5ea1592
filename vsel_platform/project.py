"""Opening a project file for use: its values, and whether every recipe can be selected with."""

import os

from vsel_platform.config import Project, load_project
from vsel_platform.methods.registry import check_recipes


def open_project(path: str | os.PathLike[str]) -> Project:
    """Read a project file and check its recipes' methods and options.

    Raises ConfigError if it is missing or wrong, or names every recipe that is.
    """
    project = load_project(path)
    check_recipes(project)
    return project
