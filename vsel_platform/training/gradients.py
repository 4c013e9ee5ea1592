"""Which of the tensors that are trained a loss depends on."""

from collections.abc import Iterator
from typing import Any

import torch

from vsel_platform.errors import ModelError


def reached(loss: torch.Tensor) -> Iterator[torch.Tensor]:
    """The leaves of the graph behind `loss`: what a backward pass would give a gradient, be it 0."""
    # Nodes and not their ids: a node that nobody holds is made anew at the next look.
    seen: set[Any] = set()
    waiting: list[Any] = [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        waiting += [following for following, _ in node.next_functions]


def require_gradients(model: torch.nn.Module, found: set[str]) -> None:
    """Raises ModelError if a tensor that is trained is not in `found`, names of those that get a gradient."""
    missing = [name for name, p in model.named_parameters() if p.requires_grad and name not in found]
    if missing:
        named = ", ".join(missing if len(missing) <= 5 else [*missing[:5], "..."])
        raise ModelError(
            f"training: {len(missing)} tensors that shall be trained get no gradient: {named}. "
            "Narrow targets of lora or lora.vision down to layers that the loss depends on"
        )
