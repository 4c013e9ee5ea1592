"""Checkpoints: weights come from safetensors alone, because loading a pickle can run code."""

import hashlib
import struct
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from vsel_platform.errors import ModelError, UnsafeCheckpointError

if TYPE_CHECKING:
    import torch

PICKLE_SUFFIXES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}
HUB_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.model", "*.txt", "*.jinja"]
_LARGEST_HEADER_BYTES = 100_000_000
_CONVERT = (
    "convert it once, on a machine you can lose, with "
    "`safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'model.safetensors')`"
)


def resolve_checkpoint(model: str, revision: str | None = None) -> Path:
    """Directory of a checkpoint: `model` itself if it is one, else a snapshot of the hub repository.

    Only safetensors weights, configuration and tokenizer files are fetched; a snapshot in the local cache is used
    when the hub cannot be reached. Raises UnsafeCheckpointError if the weights are not safetensors, ModelError if
    there is no such model.
    """
    directory = Path(model)
    if directory.is_dir():
        weight_files(directory)
        return directory
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        directory = Path(snapshot_download(model, revision=revision, allow_patterns=HUB_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise ModelError(
            f"model {model!r} is neither a directory nor a hub repository that can be fetched or is cached: "
            f"{error}. Give a directory, or fetch it once with `hf download {model}`"
        ) from error
    if not list(directory.glob("*.safetensors")):
        raise UnsafeCheckpointError(
            f"hub repository {model!r} has no .safetensors weights; other formats can run code when loaded: {_CONVERT}"
        )
    weight_files(directory)
    return directory


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a checkpoint directory, each checked to be one, sorted by name.

    Raises UnsafeCheckpointError if there are only pickle-based weights, or a pickle under a safetensors name;
    ModelError if there are no weights or a file is cut off.
    """
    found = sorted(directory.glob("*.safetensors"))
    if not found:
        pickles = sorted(f.name for f in directory.iterdir() if f.suffix in PICKLE_SUFFIXES)
        if pickles:
            raise UnsafeCheckpointError(
                f"{directory}: only {', '.join(pickles)}; such a file can run code when loaded, so it is refused: "
                f"{_CONVERT}"
            )
        raise ModelError(f"{directory}: no .safetensors weights; is this the directory of a checkpoint?")
    for file in found:
        check_safetensors(file)
    return found


def check_safetensors(path: Path) -> None:
    """Check that a file is safetensors by its header: length, JSON, and data to the last byte.

    Raises UnsafeCheckpointError if it is something else (a renamed pickle, say), ModelError if it is cut off.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else _LARGEST_HEADER_BYTES + 1
        text = file.read(length) if length <= _LARGEST_HEADER_BYTES else b""
    header = _header(text)
    if header is None:
        raise UnsafeCheckpointError(
            f"{path}: not a safetensors file in spite of its name (a renamed pickle?), so it is refused: {_CONVERT}"
        )
    end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    if size != 8 + length + end:
        raise ModelError(f"{path}: {size} bytes where its header promises {8 + length + end}; copy it again")


def _header(text: bytes) -> dict[str, Any] | None:
    try:
        header = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(header, dict):
        return None
    entries = [entry for name, entry in header.items() if name != "__metadata__"]
    described = all(isinstance(e, dict) and len(e.get("data_offsets", ())) == 2 for e in entries)
    return header if described else None


def weights_hash(directory: Path) -> str:
    """sha256 (hex) over names and contents of a directory's safetensors files."""
    digest = hashlib.sha256()
    for file in weight_files(directory):
        status = file.stat()
        digest.update(file.name.encode())
        digest.update(_file_hash(str(file.resolve()), status.st_size, status.st_mtime_ns).encode())
    return digest.hexdigest()


@lru_cache(maxsize=1024)
def _file_hash(path: str, size: int, mtime_ns: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def state_hash(model: "torch.nn.Module") -> str:
    """sha256 (hex) over names, types, shapes and bytes of a model's parameters and buffers in memory."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_state_dict_weights_only(path: Path) -> dict[str, "torch.Tensor"]:
    """State dict of a `.pth` file that a registry package ships, through torch's restricted loader.

    Raises UnsafeCheckpointError if the file holds anything but tensors and plain containers, ModelError if there is
    no such file.
    """
    import torch

    if not path.is_file():
        raise ModelError(f"{path}: no such file; install the package that ships it again")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (MemoryError, OSError):
        raise
    except Exception as error:  # the restricted unpickler raises whatever a malformed stream leads to
        raise UnsafeCheckpointError(f"{path}: not plain tensors, so it is refused: {error}") from error
    if not isinstance(state, dict):
        raise UnsafeCheckpointError(f"{path}: holds {type(state).__name__}, expected a state dict")
    return state
