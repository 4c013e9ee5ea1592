"""The deployment's modules, loaded for one project file."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

OWN = ("definitions", "assets", "automation")


def _loaded() -> list[str]:
    return [name for name in sys.modules if name.split(".")[0] in OWN]


@contextmanager
def deployment_of(file: Path) -> Iterator[pytest.MonkeyPatch]:
    """Inside, `definitions`, `assets` and `automation` are imported anew, for the project file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VSEL_PROJECT", str(file))
        for name in _loaded():
            patch.delitem(sys.modules, name)
        yield patch
    for name in _loaded():
        del sys.modules[name]
