"""Device and number format names of the project file, resolved."""

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


def torch_dtype(name: DtypeName) -> "torch.dtype":
    """The torch dtype of a settings name."""
    import torch

    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]
