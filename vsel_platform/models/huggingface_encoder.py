"""Image encoders from Hugging Face checkpoints.

The feature of a picture, per architecture:

* `cls`: last_hidden_state[:, 0], the CLS token after the final LayerNorm (DINOv2 as PreSel uses it, specification
  A1.6; ViT, DeiT, BEiT and DINOv3 alike);
* `pooled`: pooler_output, for every other architecture that has one: CLIP (the CLS token after post_layernorm,
  before the projection to the joint space), SigLIP (its attention pooling head), convolutional networks (the
  average over positions);
* `joint`, if the settings ask for it: get_image_features of the whole CLIP, SigLIP or SigLIP2 model, in the space of
  its texts.
"""

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vsel_platform.config import EncoderSettings
from vsel_platform.errors import ModelError
from vsel_platform.identity import fingerprint
from vsel_platform.models.devices import torch_dtype
from vsel_platform.models.joint_space import check_joint
from vsel_platform.models.quiet import quiet_transformers
from vsel_platform.models.safety import resolve_checkpoint, weights_hash

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from PIL import Image

CODE_VERSION = 1
CLS_ARCHITECTURES = {"dinov2", "dinov2_with_registers", "dinov3_vit", "vit", "deit", "beit"}
# Checkpoints of joint models: only the vision tower is loaded, unless their joint space is asked for.
VISION_TOWERS = {"clip": "CLIPVisionModel", "siglip": "SiglipVisionModel", "siglip2": "Siglip2VisionModel"}


class HuggingFaceEncoder:
    """A vision model and its image processor (the Pillow one, on every machine)."""

    def __init__(self, model: Any, processor: Any, *, name: str, feature: str, fingerprint: str, device: str):
        self.name = name
        self.feature = feature
        self.fingerprint = fingerprint
        self.device = device
        self._model = model
        self._processor = processor
        self.dimension = int(self.encode(self.preprocess(_blank())[None]).shape[1])

    def preprocess(self, image: "Image.Image") -> NDArray[np.float32]:
        """Pixels float32 [3, height, width] of one picture: RGB, then the processor's resize, crop, normalise.

        A processor that keeps the picture's shape (SigLIP2) gives float32 [patches, pixels of a patch + 3]: the pixels,
        whether the patch is one, and the picture's height and width in patches.
        """
        # The layout is given, because it would be guessed wrongly for a picture that is 1 or 3 pixels high.
        found = self._processor(images=image.convert("RGB"), return_tensors="np", input_data_format="channels_last")
        pixels = np.asarray(found["pixel_values"][0], dtype=np.float32)
        if "spatial_shapes" not in found:
            return pixels
        shape = np.broadcast_to(found["spatial_shapes"][0], (len(pixels), 2))
        return np.column_stack([pixels, found["pixel_attention_mask"][0], shape]).astype(np.float32)

    def encode(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Vectors float32 [n, dimension] of n pictures from `preprocess`; not normalised."""
        import torch

        with torch.inference_mode():
            inputs = self._inputs(torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device))
            output = self._model.get_image_features(**inputs) if self.feature == "joint" else self._model(**inputs)
            vectors = output.last_hidden_state[:, 0] if self.feature == "cls" else output.pooler_output
            return np.asarray(vectors.flatten(1).float().cpu().numpy(), dtype=np.float32)

    def _inputs(self, pixels: "torch.Tensor") -> dict[str, Any]:
        if pixels.ndim == 4:
            return {"pixel_values": pixels.to(self._model.dtype)}
        return {
            "pixel_values": pixels[..., :-3].to(self._model.dtype),
            "pixel_attention_mask": pixels[..., -3].long(),
            # A batch is filled up with pictures of zeros; the model takes none without a patch.
            "spatial_shapes": pixels[:, 0, -2:].long().clamp(min=1),
        }


def load(settings: EncoderSettings, device: str) -> HuggingFaceEncoder:
    """The encoder of `settings.model` (hub id or directory).

    Raises UnsafeCheckpointError for weights that are not safetensors, ModelError for a directory without a
    model, weights that do not fill the model, or an architecture that does not give the feature.
    """
    import transformers

    directory = resolve_checkpoint(settings.place, settings.revision)
    is_joint = settings.feature == "joint"
    with quiet_transformers():
        try:
            config = transformers.AutoConfig.from_pretrained(directory, trust_remote_code=False)
            if is_joint:
                check_joint(config.model_type, f"image_encoder.model: {settings.model!r}")
            processor = transformers.AutoImageProcessor.from_pretrained(
                directory, backend="pil", trust_remote_code=False
            )
            towers = {} if is_joint else VISION_TOWERS
            auto = getattr(transformers, towers.get(config.model_type, "AutoModel"))
            model, loading = auto.from_pretrained(
                directory,
                dtype=torch_dtype(settings.dtype),
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except (OSError, ValueError, ImportError, RuntimeError) as error:
            raise ModelError(f"image_encoder.model: {settings.model!r} cannot be loaded: {error}") from error
    feature = "joint" if is_joint else "cls" if config.model_type in CLS_ARCHITECTURES else "pooled"
    _refuse_missing(loading["missing_keys"], feature, settings.model)
    return _encoder(settings, model.eval().to(device), processor, feature, device, directory)


def _encoder(
    settings: EncoderSettings, model: Any, processor: Any, feature: str, device: str, directory: "Path"
) -> HuggingFaceEncoder:
    print_of_content = fingerprint(
        encoder="huggingface",
        code=CODE_VERSION,
        weights=weights_hash(directory),
        config=hashlib.sha256((directory / "config.json").read_bytes()).hexdigest(),
        processor=processor.to_dict(),
        feature=feature,
        dtype=settings.dtype,
    )
    try:
        return HuggingFaceEncoder(
            model,
            processor,
            name=f"huggingface:{settings.model}",
            feature=feature,
            fingerprint=print_of_content,
            device=device,
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise ModelError(
            f"image_encoder.model: {settings.model!r} ({type(model).__name__}) gives no pooled feature of a picture: "
            f"{error}; use a vision model such as DINOv2, ViT, CLIP or SigLIP"
        ) from error


def _refuse_missing(missing: "list[str] | set[str]", feature: str, model: str) -> None:
    """Random weights are no encoder; a pooler that the `cls` feature does not use may be missing."""
    needed = sorted(key for key in missing if feature != "cls" or not key.startswith("pooler."))
    if needed:
        raise ModelError(
            f"image_encoder.model: {model!r} lacks the weights {', '.join(needed[:5])} ({len(needed)} in all); "
            "is it a checkpoint of this architecture?"
        )


def _blank() -> "Image.Image":
    from PIL import Image

    return Image.new("RGB", (64, 64))
