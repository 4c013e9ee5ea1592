"""States and attention of single rows out of a pass over packed groups, as if the rows had passed alone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vsel_platform.models.attention import AttentionRecorder
from vsel_platform.models.packing import PackedRows, branches
from vsel_platform.models.vlm import AttentionRows, LayerStates, RowTaps, padded_places

if TYPE_CHECKING:
    import torch

Places = NDArray[np.int64]


def tap_recorder(batch: Sequence[PackedRows], taps: RowTaps, device: str) -> AttentionRecorder:
    """Recorder of the attention that the tapped rows ask for: each query sees its row's tokens up to itself."""
    import torch

    attention = _attention(taps)
    length = max(len(packed) for packed in batch)
    branch = branches(batch, length)
    queries: list[list[Places]] = [[] for _ in batch]
    allowed: list[list[NDArray[np.bool_]]] = [[] for _ in batch]
    for (group, row), own in zip(taps.rows, attention.queries, strict=True):
        places = batch[group].places[row][own]
        seen = (branch[group] == 0) | (branch[group] == row + 1)
        queries[group].append(places)
        allowed[group].append(seen & (np.arange(length) <= places[:, None]))
    padded = padded_places([_joined(own) for own in queries])
    visible = np.zeros((*padded.shape, length), bool)
    for group, seen_by in enumerate(allowed):
        count = sum(map(len, seen_by))
        visible[group, :count] = np.concatenate(seen_by) if seen_by else False
    return AttentionRecorder(
        frozenset(attention.layers),
        torch.from_numpy(padded).to(device),
        torch.from_numpy(padded_places(_keys(batch, taps))).to(device),
        allowed=torch.from_numpy(visible).to(device),
        each_query=True,
    )


def tapped_states(
    batch: Sequence[PackedRows],
    taps: RowTaps,
    kept: "dict[int, torch.Tensor]",
    recorder: AttentionRecorder | None,
) -> LayerStates:
    """Of every tapped row what `ModelForward.layer_states` gives, from hidden states [groups, tokens, width]."""
    import torch

    groups = np.array([group for group, _ in taps.rows])
    places = np.maximum(padded_places([batch[group].places[row] for group, row in taps.rows]), 0)
    hidden = {}
    for layer, states in kept.items():
        where = (torch.from_numpy(index).to(states.device) for index in (groups[:, None], places))
        hidden[layer] = states[tuple(where)]
    mass = {layer: _row_mass(batch, taps, found) for layer, found in recorder.mass.items()} if recorder else {}
    return LayerStates(hidden, mass)


def _row_mass(batch: Sequence[PackedRows], taps: RowTaps, found: "torch.Tensor") -> "torch.Tensor":
    """Mean over a row's queries, float32 [tapped rows, keys], of attention [groups, queries, keys] of all rows."""
    import torch

    attention = _attention(taps)
    union = _keys(batch, taps)
    mass = torch.zeros(len(taps.rows), max(map(len, attention.keys), default=0), device=found.device)
    begin = [0] * len(batch)
    for number, ((group, row), queries, keys) in enumerate(
        zip(taps.rows, attention.queries, attention.keys, strict=True)
    ):
        start, begin[group] = begin[group], begin[group] + len(queries)
        if len(queries) and len(keys):
            columns = np.searchsorted(union[group], batch[group].places[row][keys])
            mean = found[group, start : begin[group]].mean(dim=0)
            mass[number, : len(keys)] = mean[torch.from_numpy(columns).to(found.device)]
    return mass


def _keys(batch: Sequence[PackedRows], taps: RowTaps) -> list[Places]:
    """Of every group the places that its tapped rows ask for, ascending."""
    wanted: list[list[Places]] = [[] for _ in batch]
    for (group, row), keys in zip(taps.rows, _attention(taps).keys, strict=True):
        wanted[group].append(batch[group].places[row][keys])
    return [np.unique(_joined(own)) for own in wanted]


def _joined(places: Sequence[Places]) -> Places:
    return np.concatenate([np.zeros(0, np.int64), *places])


def _attention(taps: RowTaps) -> AttentionRows:
    if taps.attention is None:
        raise ValueError("nobody asks for attention")
    return taps.attention
