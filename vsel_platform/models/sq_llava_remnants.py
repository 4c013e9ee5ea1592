"""Parts of SQ-LLaVA's code that no released configuration reaches: a cross-attention layer and a distance.

They are here to be compared with, and used by nothing (specification 3.4).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class CrossAttention(nn.Module):
    """Queries look at targets: x = q + proj(attention(norm1(q), target)); x + ffn(norm2(x)), with exact GELU."""

    def __init__(
        self, query_width: int, target_width: int, inner_width: int, hidden_width: int, heads: int = 4
    ) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(query_width), nn.LayerNorm(query_width)
        self.q = nn.Linear(query_width, inner_width)
        self.k, self.v = nn.Linear(target_width, inner_width), nn.Linear(target_width, inner_width)
        self.proj = nn.Linear(inner_width, query_width)
        # The third stands where the released layer has a dropout.
        self.ffn = nn.Sequential(
            nn.Linear(query_width, hidden_width), nn.GELU(), nn.Identity(), nn.Linear(hidden_width, query_width)
        )

    def forward(self, query: Tensor, target: Tensor) -> Tensor:
        """[B, queries, query width] of queries (batch size B, or 1 for all) and targets [B, tokens, target width]."""
        query = query.expand(len(target), -1, -1)
        parts = (self.q(self.norm1(query)), self.k(target), self.v(target))
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        seen = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = query + self.proj(seen)
        found: Tensor = x + self.ffn(self.norm2(x))
        return found


def wasserstein_distance(x: Tensor, y: Tensor) -> float:
    """Squared 2-Wasserstein distance of the Gaussians fitted to rows [n, D], with unbiased covariances.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2), in float64; eigenvalues below 0 count as 0.
    """
    x, y = x.double(), y.double()
    first, second = torch.cov(x.T), torch.cov(y.T)
    root = _root(first)
    cross = _root(root @ second @ root)
    distance = (x.mean(0) - y.mean(0)).square().sum() + torch.trace(first + second - 2 * cross)
    return float(distance)


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = vectors * values.clamp_min(0).sqrt() @ vectors.T
    return root
