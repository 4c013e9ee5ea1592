"""Artifacts as local directories, for code that needs files on disk."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vsel_platform.pipeline.context import Context
from vsel_platform.storage.pointers import Pointer


@contextmanager
def fetched(ctx: Context, pointer: Pointer) -> Iterator[Path]:
    """A temporary local copy of an artifact's files."""
    with tempfile.TemporaryDirectory() as name:
        yield ctx.store.fetch_artifact(pointer, Path(name))
