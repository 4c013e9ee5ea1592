"""Tokens drawn from a model's probabilities, instead of the likeliest one."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a token is drawn.

    Logits are divided by `temperature`; of the `top_k` likeliest tokens those are left that together have the share
    `top_p` of the probability (at least one), ties with the last of them included.
    """

    temperature: float
    top_k: int
    top_p: float = 1.0


def kept_logits(logits: "torch.Tensor", sampling: Sampling) -> "torch.Tensor":
    """Logits [..., vocabulary] as float32, divided by the temperature; -inf for tokens that are never drawn.

    As transformers' warpers of temperature, top-k and top-p do one after the other, except that tokens which tie with
    the last one that is left are left too: so the result does not depend on the order of a sort.
    """
    scaled = logits.float() / sampling.temperature
    if sampling.top_k < scaled.shape[-1]:
        least = scaled.topk(sampling.top_k, dim=-1).values[..., -1:]
        scaled = scaled.masked_fill(scaled < least, -float("inf"))
    if sampling.top_p < 1:
        ordered = scaled.sort(dim=-1, descending=True).values
        shares = ordered.softmax(dim=-1)
        dropped = shares.cumsum(dim=-1) - shares >= sampling.top_p
        dropped[..., 0] = False
        least = ordered.masked_fill(dropped, float("inf")).amin(dim=-1, keepdim=True)
        scaled = scaled.masked_fill(scaled < least, -float("inf"))
    return scaled


def drawn_tokens(logits: "torch.Tensor", sampling: Sampling, uniform: "torch.Tensor") -> "torch.Tensor":
    """Tokens int64 [...] of logits [..., vocabulary]: the inverse of the distribution function (over token ids in
    order) at `uniform` float64 [...] in [0, 1).

    In the order of ids, not of probabilities: rounding that swaps two equally likely tokens changes no draw.
    """
    import torch

    kept = kept_logits(logits, sampling)
    sums = kept.double().softmax(dim=-1).cumsum(dim=-1)
    found = torch.searchsorted(sums, (uniform * sums[..., -1])[..., None], right=True)[..., 0]
    # The product may round up to the whole sum, behind which there is no token.
    return torch.where(found < kept.shape[-1], found, kept.argmax(dim=-1))
