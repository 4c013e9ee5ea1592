"""Artifacts: as local directories for code that needs files on disk, and the record of a training."""

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

from vsel_platform.pipeline.context import Context
from vsel_platform.storage.pointers import Pointer
from vsel_platform.training.adapter import LOSSES_FILE, PROTOTYPES


@contextmanager
def fetched(ctx: Context, pointer: Pointer) -> Iterator[Path]:
    """A temporary local copy of an artifact's files."""
    with tempfile.TemporaryDirectory() as name:
        yield ctx.store.fetch_artifact(pointer, Path(name))


def training_losses(ctx: Context, adapter: Pointer) -> list[float] | None:
    """Loss of every training step of a stored adapter [nat/token], NaN where it is no number; None if not recorded."""
    record = training_record(ctx, adapter)
    return None if record is None else record["loss"]


def training_record(ctx: Context, adapter: Pointer) -> dict[str, list[float]] | None:
    """What was measured at every training step of a stored adapter (`training.adapter.losses_of`, without how
    prototypes were used, which is not looked at in every step), NaN where there is no number; None if not recorded."""
    path = next((file.path for file in adapter.files if file.path.endswith(f"/{LOSSES_FILE}")), None)
    if path is None:
        return None
    stored = orjson.loads(ctx.store.files.read(path))
    columns = stored if isinstance(stored, dict) else {"loss": stored}
    return {
        name: [math.nan if v is None else float(v) for v in values]
        for name, values in columns.items()
        if name != PROTOTYPES
    }
