"""The loss of rows as a module, so that whatever wraps a model for several devices can wrap it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from vsel_platform.models.images import Preprocessed
from vsel_platform.models.llava_forward import LlavaForward
from vsel_platform.models.prototype_usage import PrototypeUsage
from vsel_platform.models.prototypes import PrototypeResidual, input_width
from vsel_platform.models.scoring import target_nll
from vsel_platform.training.examples import Example
from vsel_platform.training.gradients import reached

if TYPE_CHECKING:
    from vsel_platform.models.family_adapter import FamilyAdapter
    from vsel_platform.models.llava import LlavaAdapter

    Adapter = LlavaAdapter | FamilyAdapter


@dataclass(frozen=True)
class Part:
    """Rows that pass together. weights: float32 [targets], of each target in order. features: of a frozen tower, by
    image; pixels: what the tower takes instead, where it is trained."""

    rows: Sequence[Example]
    weights: Sequence[NDArray[np.float32]]
    features: "Mapping[str, torch.Tensor]"
    pixels: Mapping[str, Preprocessed]


class RowsLoss(torch.nn.Module):
    """Weighted loss of rows under a model with LoRA layers.

    `peft_model` wraps `adapter.model`, whose modules it has changed in place. `joined`: in a group of processes, where
    a part may be empty.
    """

    def __init__(self, adapter: "Adapter", peft_model: Any, *, joined: bool) -> None:
        super().__init__()
        self.peft_model = peft_model
        self._adapter = adapter
        self._joined = joined
        self._reached: set[str] | None = None
        self._blank = _blank(adapter) if joined else None

    def forward(self, part: Part) -> "tuple[torch.Tensor, torch.Tensor]":
        """(weighted sum of the targets' negative log-likelihood [nat] with gradient; of every target, float32
        [targets], without)."""
        if part.rows:
            return self._loss(part)
        # Whoever shares layers out has to take part in all passes of the others.
        idle = Example("", self._adapter.render([("user", "a"), ("assistant", "b")], 0), ())
        loss, _ = self._loss(Part([idle], [np.zeros(idle.rendered.n_targets, np.float32)], {}, {}))
        return loss, torch.zeros(0)

    def _loss(self, part: Part) -> "tuple[torch.Tensor, torch.Tensor]":
        adapter = self._adapter
        projected = self._projected(part)
        images = [adapter.row_features([projected[image] for image in row.images]) for row in part.rows]
        states, targets, _ = adapter.target_states([[row.rendered] for row in part.rows], images)
        nll = target_nll(adapter.logits(states), targets)
        weights = torch.from_numpy(np.concatenate(part.weights)).to(nll.device)
        loss = (nll * weights).sum()
        if self._reached is not None:
            found = {id(tensor) for tensor in reached(loss)}
            self._reached |= {name for name, parameter in self.named_parameters() if id(parameter) in found}
        return loss + self._nothing() if self._joined else loss, nll.detach()

    @contextmanager
    def prototypes_watched(self, usage: list[tuple[int, PrototypeUsage]]) -> Iterator[None]:
        """Inside, `usage` gets how prototypes, if there are any, group the tokens of images that pass."""
        with ExitStack() as stack:
            for module in self.peft_model.modules():
                if isinstance(module, PrototypeResidual):
                    stack.enter_context(module.watched(usage))
            yield

    @contextmanager
    def gradients_watched(self, found: set[str]) -> Iterator[None]:
        """Inside, `found` gets the names of all tensors that the gradient of a part's rows reaches."""
        self._reached = found
        try:
            yield
        finally:
            self._reached = None

    def _nothing(self) -> torch.Tensor:
        """0 that depends on all that only images reach and that is trained: in a group of processes it must take part
        in every step, images or not. A projector is passed, because its weights may lie on other devices."""
        adapter = self._adapter
        total = torch.zeros((), device=adapter.device)
        if self._blank is not None:
            total = total + adapter.project(self._blank.to(adapter.device)).float().sum() * 0.0
        if adapter.tower_gradients:
            parts = (adapter.parts.tower, *adapter.parts.projectors)
            for name, parameter in self.peft_model.named_parameters():
                if parameter.requires_grad and any(part in name for part in parts):
                    total = total + parameter.sum() * 0.0
        return total

    def _projected(self, part: Part) -> "dict[str, torch.Tensor]":
        ids = list(dict.fromkeys(image for row in part.rows for image in row.images))
        if part.pixels:
            found = dict(zip(ids, self._adapter.features([part.pixels[i] for i in ids]), strict=True))
        else:
            found = {i: part.features[i] for i in ids}
        groups: dict[tuple[int, ...], list[str]] = {}
        for i in ids:
            groups.setdefault(tuple(found[i].shape), []).append(i)
        projected: dict[str, torch.Tensor] = {}
        for members in groups.values():
            stacked = self._adapter.project(torch.stack([found[i] for i in members]))
            projected.update(zip(members, stacked, strict=True))
        return projected


def _blank(adapter: "Adapter") -> torch.Tensor | None:
    """Features of no image [1, image tokens, tower width], where features are projected within the loss and the
    projector is trained. No two tokens are the same, so that nothing is divided by 0."""
    if not isinstance(adapter, LlavaForward):
        return None
    projector = adapter.model.get_submodule(adapter.parts.projectors[0])
    if not any(parameter.requires_grad for parameter in projector.parameters()):
        return None
    shape = (1, adapter.image_tokens, input_width(projector))
    return torch.linspace(-1, 1, int(np.prod(shape))).reshape(shape)
