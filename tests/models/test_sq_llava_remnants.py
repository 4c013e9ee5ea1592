"""Parts that nothing uses, against plain formulas."""

import pytest
import torch

from vsel_platform.models.sq_llava_remnants import CrossAttention, wasserstein_distance


def test_attention_is_that_of_torch():
    torch.manual_seed(0)
    layer = CrossAttention(8, 6, 12, 16, heads=3).double()
    query, target = torch.randn(2, 4, 8).double(), torch.randn(2, 5, 6).double()
    q, k, v = layer.q(layer.norm1(query)), layer.k(target), layer.v(target)
    heads = []
    for part in range(3):
        own = slice(4 * part, 4 * part + 4)
        heads.append((q[..., own] @ k[..., own].mT / 2).softmax(-1) @ v[..., own])
    x = query + layer.proj(torch.cat(heads, -1))
    torch.testing.assert_close(layer(query, target), x + layer.ffn(layer.norm2(x)))


def test_a_query_of_one_is_shared_by_the_batch():
    torch.manual_seed(0)
    layer = CrossAttention(8, 6, 8, 8)
    query, target = torch.randn(1, 4, 8), torch.randn(3, 5, 6)
    torch.testing.assert_close(layer(query, target), layer(query.repeat(3, 1, 1), target))


def test_the_distance_of_shifted_and_scaled_sets_is_known():
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    assert wasserstein_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert wasserstein_distance(x, x + torch.tensor([1.0, 2.0, 0.0])) == pytest.approx(5, rel=1e-5)
    variance = torch.cov(x.double().T).trace().item()
    moved = x.double().mean(0).square().sum().item()
    assert wasserstein_distance(x, 3 * x) == pytest.approx(4 * (variance + moved), rel=1e-5)
