"""The parts of a model of another family than LLaVA, run apart."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vsel_platform.models.decoder_forward import DecoderForward, ModelParts
from vsel_platform.models.families import Family
from vsel_platform.models.images import ImageInput, Preprocessed

if TYPE_CHECKING:
    import torch
    from PIL import Image

SQUARE = "square"
"""Pixels of a picture padded to a square, among the arrays of its input."""


class FamilyForward(DecoderForward):
    """A model of a family behind `models.vlm.ModelForward`: its tower gives an image any number of tokens.

    Tower and projector are one step here, `features`; `project` passes them on. Where vision features go into several
    layers of the decoder (Qwen3-VL), the features of a token stand side by side: [tokens, layers x model width].
    """

    def __init__(
        self,
        model: Any,
        image_processor: Any,
        family: Family,
        *,
        name: str,
        fingerprint: str,
        device: str,
        image_token_id: int,
    ) -> None:
        self.family = family
        self._image_width = int(model.config.text_config.hidden_size)
        self._image_processor = image_processor
        super().__init__(model, name=name, fingerprint=fingerprint, device=device, image_token_id=image_token_id)

    @property
    def parts(self) -> ModelParts:
        """Where language model, tower and projector lie."""
        vision = self.model.config.vision_config
        n_layers = int(getattr(vision, "num_hidden_layers", None) or vision.depth)
        chosen = getattr(self.model.config, "vision_feature_layer", -1)
        used = [
            layer if layer >= 0 else n_layers + 1 + layer for layer in ([chosen] if isinstance(chosen, int) else chosen)
        ]
        return ModelParts(f"model.{self.family.decoder}", self.family.tower, self._projectors(), max(used))

    def _projectors(self) -> tuple[str, ...]:
        """Paths of the modules that are called; a list of them is no module that peft can wrap."""
        import torch

        modules = {path: self.model.get_submodule(path) for path in self.family.projectors}
        return tuple(
            own
            for path, module in modules.items()
            for own in (
                [f"{path}.{i}" for i in range(len(module))] if isinstance(module, torch.nn.ModuleList) else [path]
            )
        )

    def preprocess(self, image: "Image.Image") -> ImageInput:
        """The picture in RGB through the checkpoint's image processor."""
        picture = image.convert("RGB")
        inputs = self._processed([picture])
        arrays = {name: inputs[name].numpy() for name in self.family.arrays if name in inputs}
        if self.family.square_in_company:
            arrays[SQUARE] = self._processed([picture, picture])["pixel_values"][:1].numpy()
        return ImageInput(arrays, self.family.layout_of(inputs))

    def features(self, images: Sequence[Preprocessed]) -> "Sequence[torch.Tensor]":
        """Features [image tokens, width] of pictures; those of the same sizes pass together."""
        groups: dict[tuple[Any, ...], list[int]] = {}
        inputs = [image for image in images if isinstance(image, ImageInput)]
        for i, image in enumerate(inputs):
            groups.setdefault(tuple(array.shape for array in image.arrays.values()), []).append(i)
        found: dict[int, torch.Tensor] = {}
        for members in groups.values():
            found.update(zip(members, self._same_sizes([inputs[i] for i in members]), strict=True))
        return [found[i] for i in range(len(inputs))]

    def project(self, features: "torch.Tensor") -> "torch.Tensor":
        """The same, on the device: the tower's features are projected already."""
        return features.to(self.device)

    def row_features(self, images: "Sequence[torch.Tensor]") -> "list[torch.Tensor]":
        """Features as the model sees them in a row of so many images (`families.Family.square_in_company`)."""
        if not self.family.square_in_company:
            return list(images)
        square = self._square_tokens()
        return [image[-square:] if len(images) > 1 else image[:-square] for image in images]

    def row_tokens(self, counts: Sequence[int]) -> list[int]:
        """The lengths of `row_features`, given those of the features."""
        if not self.family.square_in_company:
            return list(counts)
        square = self._square_tokens()
        return [square if len(counts) > 1 else count - square for count in counts]

    @property
    def decoder(self) -> Any:
        """The language model without its output layer."""
        return getattr(self.model.model, self.family.decoder)

    def positions(self, ids: NDArray[np.int64], grids: Sequence[tuple[int, ...]]) -> NDArray[np.int64] | None:
        """Positions int64 [3, n] of tokens [n] with images of these grids; None for models that count 0, 1, 2."""
        if not self.family.counts_positions:
            return None
        if not grids:
            return np.tile(np.arange(len(ids)), (3, 1))
        import torch

        tokens = torch.from_numpy(ids)[None]
        kinds = (tokens == self._image_token_id).int()
        found, _ = self.model.model.get_rope_index(tokens, kinds, image_grid_thw=torch.tensor(grids))
        return np.asarray(found[:, 0].numpy(), np.int64)

    def _processed(self, pictures: "list[Image.Image]") -> Any:
        """The image processor's output for the images of one row."""
        options = {"return_row_col_info": True} if self.family.layout == ("rows", "cols") else {}
        return self._image_processor(
            images=[pictures], return_tensors="pt", input_data_format="channels_last", **options
        )

    def _same_sizes(self, images: Sequence[ImageInput]) -> "Sequence[torch.Tensor]":
        import torch

        arguments = {
            name: torch.from_numpy(np.concatenate([image.arrays[name] for image in images])).to(self.device)
            for name in images[0].arrays
        }
        square = arguments.pop(SQUARE, None)
        found = self._projected(arguments, len(images))
        if square is not None:
            # Any number but 1 means that there are other images in the row.
            company = {"pixel_values": square, "batch_num_images": torch.tensor([len(images) + 1])}
            squares = self._projected(arguments | company, len(images))
            found = [torch.cat(pair) for pair in zip(found, squares, strict=True)]
        return found

    def _projected(self, arguments: "dict[str, torch.Tensor]", count: int) -> "list[torch.Tensor]":
        """Tower and projector: features [image tokens, width] of `count` images."""
        import torch

        pixels = arguments["pixel_values"].to(self.model.dtype)
        with torch.set_grad_enabled(self.tower_gradients and torch.is_grad_enabled()), self._apart(arguments):
            output = self.model.get_image_features(**(arguments | {"pixel_values": pixels}), return_dict=True)
        layers = [output.pooler_output, *(getattr(output, "deepstack_features", None) or ())]
        return [torch.cat([layer[i].flatten(0, -2) for layer in layers], dim=-1) for i in range(count)]

    @contextmanager
    def _apart(self, arguments: "dict[str, torch.Tensor]") -> Iterator[None]:
        """Inside, prototypes can tell apart the images of a tower that lays their tokens one after the other."""
        from vsel_platform.models.prototypes import PrototypeResidual

        with ExitStack() as stack:
            if "image_grid_thw" in arguments:
                lengths = arguments["image_grid_thw"].prod(dim=-1).tolist()
                for module in self.model.modules():
                    if isinstance(module, PrototypeResidual):
                        stack.enter_context(module.images(lengths))
            yield

    def _with_features(
        self, embeddings: "torch.Tensor", is_image: "torch.Tensor", features: "torch.Tensor"
    ) -> "dict[str, Any]":
        import torch

        first, *deeper = torch.split(features, self._image_width, dim=-1)
        inputs = super()._with_features(embeddings, is_image, first)
        if deeper:
            inputs |= {"visual_pos_masks": is_image, "deepstack_visual_embeds": deeper}
        return inputs

    def _parts(self, inputs: "dict[str, Any]", prefix: int) -> "tuple[dict[str, Any], dict[str, Any]]":
        parts = super()._parts(inputs, prefix)
        if "visual_pos_masks" in inputs:
            is_image = inputs["visual_pos_masks"]
            first = is_image.nonzero()[:, 1] < prefix
            for part, tokens, own in zip(parts, (slice(prefix), slice(prefix, None)), (first, ~first), strict=True):
                part["visual_pos_masks"] = is_image[:, tokens]
                part["deepstack_visual_embeds"] = [layer[own] for layer in inputs["deepstack_visual_embeds"]]
        return parts

    def _square_tokens(self) -> int:
        """Tokens of a picture without tiles, and the line break behind it."""
        vision = self.model.config.vision_config
        return int((vision.image_size // vision.patch_size) ** 2) + 1
