"""Tokens drawn from probabilities."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vsel_platform.models.sampling import Sampling, drawn_tokens, kept_logits

VOCABULARY = 40
LOGITS = torch.from_numpy(np.random.default_rng(0).normal(0, 3, (5, VOCABULARY))).float()


@pytest.mark.parametrize(
    "sampling", [Sampling(1.0, VOCABULARY), Sampling(1.2, 7, 0.95), Sampling(0.3, 100, 0.5), Sampling(2.0, 1, 0.9)]
)
def test_the_tokens_that_are_left_are_those_of_transformers(sampling):
    from transformers.generation.logits_process import (
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    expected = TemperatureLogitsWarper(sampling.temperature)(None, LOGITS)
    expected = TopKLogitsWarper(min(sampling.top_k, VOCABULARY))(None, expected)
    expected = TopPLogitsWarper(sampling.top_p)(None, expected)
    assert torch.equal(kept_logits(LOGITS, sampling), expected)


def test_tokens_that_tie_with_the_last_one_are_left():
    logits = torch.tensor([3.0, 1.0, 1.0, 1.0, 0.0])
    kept = kept_logits(logits, Sampling(1.0, 2)).isfinite()
    assert kept.tolist() == [True, True, True, True, False]
    assert kept_logits(logits, Sampling(1.0, 5, 0.8)).isfinite().tolist() == [True, True, True, True, False]


def test_the_share_of_draws_is_the_probability():
    n, sampling = 20_000, Sampling(0.8, 6, 0.9)
    uniform = torch.from_numpy((np.arange(n) + 0.5) / n)
    drawn = drawn_tokens(LOGITS[:1].expand(n, -1), sampling, uniform)
    shares = np.bincount(drawn.numpy(), minlength=VOCABULARY) / n
    np.testing.assert_allclose(shares, kept_logits(LOGITS[0], sampling).softmax(-1).numpy(), atol=2 / n)


@given(st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=8), st.floats(0, 1, exclude_max=True))
def test_only_tokens_that_are_left_are_drawn(values, uniform):
    logits, sampling = torch.tensor([values]), Sampling(1.0, 3, 0.9)
    (token,) = drawn_tokens(logits, sampling, torch.tensor([uniform], dtype=torch.float64)).tolist()
    assert kept_logits(logits, sampling)[0, token].isfinite()


def test_the_ends_of_the_chance_draw_the_first_and_the_last_token():
    logits = torch.tensor([[-float("inf"), 1.0, 1.0, -float("inf")]])
    for uniform, token in ((0.0, 1), (1 - 2**-53, 2)):
        assert drawn_tokens(logits, Sampling(1.0, 4), torch.tensor([uniform], dtype=torch.float64)).tolist() == [token]


def test_a_low_temperature_draws_the_likeliest_token():
    uniform = torch.rand(5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(drawn_tokens(LOGITS, Sampling(1e-4, VOCABULARY), uniform), LOGITS.argmax(-1))
