"""Modules rebuilt from the names and shapes of their parameters, or from the paths of their linear layers."""

from typing import Any

import torch
from torch import nn


def _placed(root: nn.Module, path: str) -> nn.Module:
    """The submodule of a path, made if it is not there."""
    for name in path.split(".") if path else []:
        if name not in dict(root.named_children()):
            root.add_module(name, nn.Module())
        root = root.get_submodule(name)
    return root


def module_of(parameters: list[dict[str, Any]]) -> nn.Module:
    """A module with these parameters in this order; one with a one-dimensional `weight` is a LayerNorm."""
    root = nn.Module()
    shapes = {entry["name"]: entry["shape"] for entry in parameters}
    for entry in parameters:
        path, _, name = entry["name"].rpartition(".")
        if name == "weight" and len(entry["shape"]) == 1:
            parent, _, leaf = path.rpartition(".")
            _placed(root, parent).add_module(leaf, nn.LayerNorm(entry["shape"], bias=f"{path}.bias" in shapes))
        owner = _placed(root, path)
        if name not in dict(owner.named_parameters(recurse=False)):
            owner.register_parameter(name, nn.Parameter(torch.zeros(entry["shape"])))
        owner.get_parameter(name).requires_grad_(entry["requires_grad"])
    assert {name: list(p.shape) for name, p in root.named_parameters()} == shapes
    return root


def module_with_linears(paths: list[str]) -> nn.Module:
    """A module whose linear layers have these paths."""
    root = nn.Module()
    for path in paths:
        parent, _, leaf = path.rpartition(".")
        _placed(root, parent).add_module(leaf, nn.Linear(2, 2))
    return root
