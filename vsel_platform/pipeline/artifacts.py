"""Artifacts: as local directories for code that needs files on disk, and the record of a training."""

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

from vsel_platform.pipeline.context import Context
from vsel_platform.storage.pointers import Pointer
from vsel_platform.training.adapter import LOSSES_FILE


@contextmanager
def fetched(ctx: Context, pointer: Pointer) -> Iterator[Path]:
    """A temporary local copy of an artifact's files."""
    with tempfile.TemporaryDirectory() as name:
        yield ctx.store.fetch_artifact(pointer, Path(name))


def training_losses(ctx: Context, adapter: Pointer) -> list[float] | None:
    """Loss of every training step of a stored adapter [nat/token], NaN where it is no number; None if not recorded."""
    path = next((file.path for file in adapter.files if file.path.endswith(f"/{LOSSES_FILE}")), None)
    if path is None:
        return None
    return [math.nan if loss is None else float(loss) for loss in orjson.loads(ctx.store.files.read(path))]
