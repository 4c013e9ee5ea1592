"""SQ-LLaVA's prototypes as a projector of its own, and in front of a projector that is there already."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from vsel_platform.config_training import PrototypeSettings
from vsel_platform.errors import ModelError
from vsel_platform.models.prototype_extractor import PrototypeExtractor, PrototypeOptions, released_options
from vsel_platform.models.prototype_usage import PrototypeUsage, usage_of


class PrototypeProjector(PrototypeExtractor):
    """Prototype extractor and two linear layers with QuickGELU between them: [B, L, D] to [B, L, out_width]."""

    def __init__(self, width: int, out_width: int, options: PrototypeOptions | None = None) -> None:
        super().__init__(width, options)
        self.mlp = nn.Sequential(nn.Linear(width, out_width), QuickGelu(), nn.Linear(out_width, out_width))

    def forward(self, x: Tensor) -> Tensor:
        """Projected tokens [B, L, out_width]."""
        projected: Tensor = self.mlp(super().forward(x))
        return projected


class QuickGelu(nn.Module):
    """u sigmoid(1.702 u)."""

    def forward(self, u: Tensor) -> Tensor:
        """The same shape."""
        return u * torch.sigmoid(1.702 * u)


def released_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """State of a released projector (keys without `mm_projector.`) for a `PrototypeProjector` of `released_options`.

    Only `ln_1` is left out, which the released model has and never uses.
    """
    return {key: tensor for key, tensor in state.items() if not key.startswith("ln_1.")}


class Gate(nn.Module):
    """One factor per channel, at first 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape [..., width], in the dtype of x."""
        return self.weight.to(x.dtype) * x


class PrototypeResidual(nn.Module):
    """A projector whose input is x + gate * (what the prototypes say of x).

    `gate` has one number per channel and begins at 0: at first the projector gives exactly what it gave before, and
    training lets in as much as helps. (A gradient reaches the extractor once the gate has left 0.) The projector's own
    weights come first among the parameters.
    """

    def __init__(self, projector: nn.Module, width: int, options: PrototypeOptions | None = None) -> None:
        super().__init__()
        self.projector = projector
        self.gate = Gate(width)
        self.extractor = PrototypeExtractor(width, options)
        self._lengths: tuple[int, ...] | None = None
        self._usage: list[tuple[int, PrototypeUsage]] | None = None

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Projected tokens of x [images, tokens, width]; or of [tokens of all images, width] inside `images`.

        Raises ModelError if the tokens of several images cannot be told apart.
        """
        return self.projector(x + self.gate(self._aggregated(x)).to(x.dtype), *args, **kwargs)

    @contextmanager
    def images(self, lengths: Sequence[int]) -> Iterator[None]:
        """Inside, flat tokens are those of images of these numbers of tokens, one after the other."""
        self._lengths = tuple(lengths)
        try:
            yield
        finally:
            self._lengths = None

    @contextmanager
    def watched(self, usage: list[tuple[int, PrototypeUsage]]) -> Iterator[None]:
        """Inside, `usage` gets (number of images, how their tokens were grouped) of all that pass."""
        self._usage = usage
        try:
            yield
        finally:
            self._usage = None

    def _grouped(self, x: Tensor) -> Tensor:
        found = self.extractor.group(x)
        if self._usage is not None:
            self._usage.append((len(x), usage_of(found)))
        return found.aggregated

    def _aggregated(self, x: Tensor) -> Tensor:
        if x.ndim == 3:
            return self._grouped(x)
        if x.ndim != 2 or self._lengths is None or sum(self._lengths) != len(x):
            raise ModelError(
                f"prototypes: tokens {tuple(x.shape)} of images of {self._lengths} tokens; flat tokens need "
                "the number of tokens of every image (PrototypeResidual.images)"
            )
        return torch.cat([self._grouped(image[None])[0] for image in torch.split(x, list(self._lengths))])


def with_prototypes(projector: nn.Module, settings: PrototypeSettings) -> PrototypeResidual:
    """`projector` behind a prototype extractor; the new weights are float32 on the projector's device.

    The extractor starts from torch's global random state. Raises ModelError if prototypes stand there already, or the
    width of the projector's input is not known.
    """
    if isinstance(projector, PrototypeResidual):
        raise ModelError("prototypes: the projector has prototypes in front of it already")
    residual = PrototypeResidual(projector, input_width(projector), prototype_options(settings))
    device = next(projector.parameters()).device
    residual.gate.to(device)
    residual.extractor.to(device)
    return residual


def prototype_options(settings: PrototypeSettings) -> PrototypeOptions:
    """The form of extractor that the settings name; with `key_norm` token, all of it is the released one's."""
    if settings.key_norm == "token":
        released = released_options(settings.prototypes, settings.iterations)
        return replace(released, read_out=settings.read_out)
    return PrototypeOptions(settings.prototypes, settings.iterations, read_out=settings.read_out)


def input_width(projector: nn.Module) -> int:
    """Channels of a projector's input: those of its first layer, before a shuffle of pixels into channels.

    Raises ModelError if the first weights are neither a linear layer's nor a norm's.
    """
    first = next((m for m in projector.modules() if next(m.parameters(recurse=False), None) is not None), None)
    weight = getattr(first, "weight", None)
    if isinstance(first, nn.Linear):
        return int(first.in_features) // int(getattr(projector, "scale_factor", 1)) ** 2
    if isinstance(weight, Tensor) and weight.ndim == 1:
        return len(weight)
    raise ModelError(f"prototypes: the width of what goes into a {type(projector).__name__} is not known")
