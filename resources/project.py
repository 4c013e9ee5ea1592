"""The project file as a Dagster resource."""

import os
from pathlib import Path

import dagster as dg

from vsel_platform.config import Project
from vsel_platform.pipeline.context import Context
from vsel_platform.project import open_project

ROOT = Path(__file__).resolve().parent.parent
CANDIDATES = ("vsel.yaml", "demo/vsel.yaml", "examples/llava_665k.yaml")


def project_file() -> Path:
    """`VSEL_PROJECT`, else the first of vsel.yaml, the demo's project, the example, beside definitions.py."""
    if named := os.environ.get("VSEL_PROJECT"):
        return Path(named)
    return next((ROOT / name for name in CANDIDATES if (ROOT / name).is_file()), ROOT / CANDIDATES[0])


class ProjectResource(dg.ConfigurableResource):  # type: ignore[misc]
    """Opens the project file anew for every run, so that a changed setting needs no restart."""

    path: str

    def project(self) -> Project:
        """The validated project file."""
        return open_project(self.path)

    def context(self, run_id: str = "") -> Context:
        """Context of a stage that runs in this process."""
        return Context(self.project(), run_id)
