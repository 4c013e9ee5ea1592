"""Attention of a few query tokens, recomputed from a layer's queries and keys while its output is made as ever.

A decoder runs with fused attention, which keeps no map. Where a signal needs some rows of a map, they are made from
the same rotated and normalised queries and keys that the layer uses, in float32, and reduced at once: no map of all
tokens by all tokens is ever held, and models differ in nothing, because the rows are taken where transformers calls
the attention function.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

IMPLEMENTATION = "vsel_recorded_sdpa"
BLOCK_ELEMENTS = 1 << 25
"""Attention weights [float32] held at a time: 128 MiB."""


@dataclass
class AttentionRecorder:
    """What to record in a forward pass, and what was recorded.

    layers: numbers of decoder layers, from 0. queries, keys: int64 [rows, n], places of tokens in their row, -1 for
    padding. mass: per layer float32 [rows, keys], the mean over heads and queries of the attention that each key
    gets (0 for a row without queries), or with `each_query` [rows, n queries, keys]. allowed: bool [rows, n queries,
    tokens], which tokens each query sees; None for all up to itself.

    With `each_query` the tokens may pass in several parts, one behind the other: each part gives the rows of its own
    queries.
    """

    layers: frozenset[int]
    queries: "torch.Tensor"
    keys: "torch.Tensor"
    mass: "dict[int, torch.Tensor]" = field(default_factory=dict)
    allowed: "torch.Tensor | None" = None
    each_query: bool = False
    _parts: "dict[tuple[int, int], tuple[torch.Tensor | None, torch.Tensor]]" = field(default_factory=dict)

    def record(self, layer: int, query: "torch.Tensor", key: "torch.Tensor", scaling: float | None) -> None:
        """Take the rows of one layer, given its queries and keys [rows, heads, tokens, head size]."""
        if layer not in self.layers:
            return
        n_tokens = key.shape[2]
        queries, keys = self._inside(n_tokens - query.shape[2], n_tokens)
        if queries is None:
            found = self._nothing()
        else:
            allowed = None if self.allowed is None else self.allowed[..., :n_tokens]
            found = attention_mass(query, key, queries, keys, scaling, allowed=allowed, each_query=self.each_query)
        self.mass[layer] = self.mass[layer] + found if layer in self.mass else found

    def _nothing(self) -> "torch.Tensor":
        """The mass of tokens among which no query is."""
        import torch

        rows, n_keys = self.keys.shape
        shape = (rows, self.queries.shape[1], n_keys) if self.each_query else (rows, n_keys)
        return torch.zeros(shape, device=self.keys.device)

    def _inside(self, start: int, end: int) -> "tuple[torch.Tensor | None, torch.Tensor]":
        """Queries among the tokens from `start` to `end`, None if there are none, and keys before `end`."""
        if (start, end) not in self._parts:
            inside = (self.queries >= start) & (self.queries < end)
            queries = self.queries.masked_fill(~inside, -1) if bool(inside.any()) else None
            self._parts[start, end] = queries, self.keys.masked_fill(self.keys >= end, -1)
        return self._parts[start, end]


_ACTIVE: list[AttentionRecorder] = []


@contextmanager
def recording(text_config: Any, recorder: AttentionRecorder) -> Iterator[AttentionRecorder]:
    """Record the attention of forward passes inside. `text_config` is the config that the decoder's layers look at.

    Not for several threads at once.
    """
    _register()
    before = text_config._attn_implementation
    text_config._attn_implementation = IMPLEMENTATION
    _ACTIVE.append(recorder)
    try:
        yield recorder
    finally:
        _ACTIVE.pop()
        text_config._attn_implementation = before


def attention_mass(
    query: "torch.Tensor",
    key: "torch.Tensor",
    queries: "torch.Tensor",
    keys: "torch.Tensor",
    scaling: float | None = None,
    *,
    allowed: "torch.Tensor | None" = None,
    each_query: bool = False,
) -> "torch.Tensor":
    """Mean over heads and queries of causal softmax attention, float32 [rows, n_keys].

    `query` [rows, heads, q, size] are the last q of the tokens of `key` [rows, key heads, tokens, size]; `queries`
    and `keys` are places among those tokens, int64, -1 for padding (padding gives 0). `allowed`, bool [rows,
    n_queries, tokens], says which tokens each query sees where that is not all up to itself. `each_query`: the mean
    over heads alone, float32 [rows, n_queries, n_keys].
    """
    import torch

    rows, heads, n_query, size = query.shape
    key_heads, n_tokens = key.shape[1], key.shape[2]
    scaling = size**-0.5 if scaling is None else scaling
    transposed = key.float().transpose(2, 3)
    single: list[torch.Tensor] = []
    total = torch.zeros(rows, n_tokens, device=query.device)
    block = max(1, BLOCK_ELEMENTS // max(1, rows * heads * n_tokens))
    place = torch.arange(n_tokens, device=query.device)
    for start in range(0, queries.shape[1], block):
        where = queries[:, start : start + block]
        known = where >= 0
        index = (where - (n_tokens - n_query)).clamp(min=0)[:, None, :, None].expand(-1, heads, -1, size)
        chosen = query.gather(2, index).float() * scaling
        # Heads that share keys are multiplied with them together.
        scores = (chosen.reshape(rows, key_heads, -1, size) @ transposed).view(rows, heads, -1, n_tokens)
        unseen = place > where[:, None, :, None] if allowed is None else ~allowed[:, None, start : start + block]
        weights = scores.masked_fill_(unseen & known[:, None, :, None], float("-inf")).softmax(dim=-1)
        of_queries = weights.sum(dim=1) * known[:, :, None]
        if each_query:
            wanted = keys.clamp(min=0)[:, None].expand(-1, where.shape[1], -1)
            single.append((of_queries / heads).gather(2, wanted).masked_fill(keys[:, None] < 0, 0.0))
        else:
            total += of_queries.sum(dim=1)
    if each_query:
        return torch.cat(single, dim=1)
    count = (queries >= 0).sum(dim=1, keepdim=True).clamp(min=1)
    found = (total / (count * heads)).gather(1, keys.clamp(min=0))
    return found.masked_fill(keys < 0, 0.0)


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(IMPLEMENTATION, _recorded_sdpa)
    AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)


def _recorded_sdpa(
    module: "torch.nn.Module",
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    attention_mask: "torch.Tensor | None",
    *,
    scaling: float | None = None,
    **options: Any,
) -> "tuple[torch.Tensor, None]":
    """Fused attention as ever; what is to be recorded goes to the recorder."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    _ACTIVE[-1].record(int(module.layer_idx), query, key, scaling)  # type: ignore[arg-type]
    result: tuple[torch.Tensor, None] = sdpa_attention_forward(
        module, query, key, value, attention_mask, scaling=scaling, **options
    )
    return result
