"""Device and number format names of the project file, resolved."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vsel_platform.errors import ConfigError

if TYPE_CHECKING:
    import torch

DtypeName = Literal["float32", "bfloat16", "float16"]


def resolve_device(device: str) -> str:
    """Name of a torch device: `auto` is the first CUDA device if there is one, else the CPU.

    Raises ConfigError for a device that this machine does not have.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ConfigError(f"compute.device: {device!r} is no device; use auto, cpu, cuda or cuda:1") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"compute.device: {device!r} asked for, but torch sees no CUDA device; use auto or cpu")
    return device


@contextmanager
def own_device(device: str) -> Iterator[str]:
    """`device`, but for `auto` or `cuda` with several CUDA devices one that no other job of this machine holds.

    So that as many steps as the pool `gpu` allows have a device each. If all are held, the first is shared.
    """
    import torch

    count = torch.cuda.device_count() if device in ("auto", "cuda") and torch.cuda.is_available() else 0
    if count < 2:
        yield device
        return
    with ExitStack() as held:
        for number in range(count):
            # Beside other users' files: a name of one's own, so that nobody's permissions are in the way.
            path = Path(tempfile.gettempdir()) / f"vsel-{os.getuid()}-cuda-{number}.lock"
            file = held.enter_context(path.open("w"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield f"cuda:{number}"
            return
        yield "cuda:0"


def torch_dtype(name: DtypeName) -> "torch.dtype":
    """The torch dtype of a settings name."""
    import torch

    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]
