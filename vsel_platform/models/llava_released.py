"""The original LLaVA v1.5 checkpoint format (`llava_llama`), mapped to transformers, with its own processing."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from numpy.typing import NDArray

from vsel_platform.errors import ModelError
from vsel_platform.identity import fingerprint
from vsel_platform.models.devices import DtypeName, resolve_device, torch_dtype
from vsel_platform.models.llava_forward import LlavaForward
from vsel_platform.models.quiet import quiet_transformers
from vsel_platform.models.released_tokenizer import ReleasedTokenizer
from vsel_platform.models.safety import state_hash, weight_files

if TYPE_CHECKING:
    import torch

IMAGE_TOKEN = -200
_TEXT_KEYS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "hidden_act", "max_position_embeddings", "rms_norm_eps", "rope_theta",
    "attention_bias", "tie_word_embeddings",
)  # fmt: skip


class ReleasedLlava(LlavaForward):
    """A model of the original format with its tokenizer.

    max_positions: rows are cut to this many positions, images expanded (`tokenizer_model_max_length`).
    """

    def __init__(
        self,
        model: Any,
        image_processor: Any,
        tokenizer: ReleasedTokenizer,
        *,
        directory: Path,
        device: str,
        max_positions: int,
    ) -> None:
        super().__init__(
            model,
            image_processor,
            name=str(directory),
            fingerprint=fingerprint(model="llava_llama", weights=state_hash(model), dtype=str(model.dtype)),
            device=device,
            image_token_id=IMAGE_TOKEN,
        )
        self.tokenizer = tokenizer
        self.max_positions = max_positions


def load_released_llava(
    directory: Path, *, vision_tower: Path | None = None, device: str = "auto", dtype: DtypeName = "float32"
) -> ReleasedLlava:
    """Load an original LLaVA checkpoint with an mlp2x_gelu projector.

    `vision_tower` is the directory of the CLIP tower; by default `mm_vision_tower` of the checkpoint's config,
    relative to the folder that holds the checkpoint. Raises UnsafeCheckpointError for pickled weights, ModelError
    for another architecture or missing weights.
    """
    import transformers

    config = read_config(directory)
    tower = vision_tower or directory.parent / str(config["mm_vision_tower"])
    if not tower.is_dir():
        raise ModelError(f"{directory}: no vision tower at {tower}; pass vision_tower")
    weight_files(tower)
    device = resolve_device(device)
    with quiet_transformers():
        clip = transformers.CLIPVisionModel.from_pretrained(tower, use_safetensors=True)
        image_processor = transformers.AutoImageProcessor.from_pretrained(tower, backend="pil")
        model = transformers.LlavaForConditionalGeneration(_llava_config(config, clip.config))
    _fill(model, clip, directory)
    tokenizer = ReleasedTokenizer(directory)
    return ReleasedLlava(
        model.to(device=device, dtype=torch_dtype(dtype)),
        image_processor,
        tokenizer,
        directory=directory,
        device=device,
        max_positions=int(config.get("tokenizer_model_max_length") or tokenizer.model_max_length),
    )


def read_config(directory: Path) -> dict[str, Any]:
    """config.json of an original LLaVA checkpoint. Raises ModelError if it is none that is supported."""
    file = directory / "config.json"
    if not file.is_file():
        raise ModelError(f"{file}: missing; is this the directory of a checkpoint?")
    config: dict[str, Any] = orjson.loads(file.read_bytes())
    expected = {"model_type": "llava_llama", "mm_projector_type": "mlp2x_gelu", "mm_vision_select_feature": "patch"}
    for key, value in expected.items():
        if config.get(key) != value:
            raise ModelError(f"{file}: {key} is {config.get(key)!r}; the released LLaVA-1.5 format has {value!r}")
    if config.get("mm_use_im_start_end") or config.get("mm_use_im_patch_token"):
        raise ModelError(f"{file}: image start, end and patch tokens are not supported (LLaVA-1.5 has none)")
    return config


def _llava_config(config: dict[str, Any], vision_config: Any) -> Any:
    import transformers

    text = transformers.LlamaConfig(**{key: config[key] for key in _TEXT_KEYS if key in config})
    return transformers.LlavaConfig(
        vision_config=vision_config,
        text_config=text,
        projector_hidden_act="gelu",
        vision_feature_layer=config["mm_vision_select_layer"],
        vision_feature_select_strategy="default",
        tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
    )


def _fill(model: Any, clip: Any, directory: Path) -> None:
    """Copy the checkpoint's weights into `model`; a tower inside the checkpoint (tuned) comes before `clip`."""
    from safetensors.torch import load_file

    model.model.vision_tower.load_state_dict(clip.state_dict())
    state: dict[str, torch.Tensor] = {}
    for file in weight_files(directory):
        for key, tensor in load_file(file).items():
            state[_renamed(key)] = tensor
    needed = {key for key in model.state_dict() if not key.startswith("model.vision_tower.")}
    if model.config.tie_word_embeddings:
        needed.discard("lm_head.weight")
    missing = sorted(needed - set(state))
    result = model.load_state_dict(state, strict=False)
    if missing or result.unexpected_keys:
        raise ModelError(
            f"{directory}: weights do not fill a LLaVA-1.5 model; missing: {', '.join(missing[:5]) or 'none'}; "
            f"unknown: {', '.join(sorted(result.unexpected_keys)[:5]) or 'none'}"
        )


def _renamed(key: str) -> str:
    """Name of an original weight in LlavaForConditionalGeneration."""
    for old, new in (
        ("model.mm_projector.0.", "model.multi_modal_projector.linear_1."),
        ("model.mm_projector.2.", "model.multi_modal_projector.linear_2."),
        ("model.vision_tower.vision_tower.vision_model.", "model.vision_tower."),
        ("model.", "model.language_model."),
    ):
        if key.startswith(old):
            return new + key[len(old) :]
    return key


def expand_images(
    ids: NDArray[np.int64], labels: NDArray[np.int64], *, image_tokens: int, limit: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids and labels [n] with every IMAGE_TOKEN repeated `image_tokens` times, cut to `limit` positions."""
    counts = np.where(ids == IMAGE_TOKEN, image_tokens, 1)
    return np.repeat(ids, counts)[:limit], np.repeat(labels, counts)[:limit]
