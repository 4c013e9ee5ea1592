"""Scores from losses: formulas, missing values, direction."""

import numpy as np
import pytest
from array_signals import signals_of

from vsel_platform.methods.api import Options
from vsel_platform.methods.loss_scores import (
    PerplexityOptions,
    VisnecOptions,
    el2n,
    perplexity,
    quantiles,
    vig,
    visnec,
)

FULL = [1.0, 2.0, np.nan, 3.0]
BLIND = [1.5, 1.0, 2.0, 3.004]
SIGNALS = signals_of("aaaa", mean_losses={"full": FULL, "no_image": BLIND})


def test_perplexity_is_the_exponential_of_the_mean_loss_and_ranks_either_way():
    found = perplexity(SIGNALS, PerplexityOptions())
    np.testing.assert_allclose(found.columns["perplexity"], np.exp(FULL))
    np.testing.assert_array_equal(np.argsort(found.score)[:3], [0, 1, 3])
    low = perplexity(SIGNALS, PerplexityOptions(prefer="low")).score
    np.testing.assert_array_equal(low, -found.score)


def test_middle_perplexity_prefers_the_median():
    signals = signals_of("aaaaa", mean_losses={"full": [5.0, 1, 3, 2, 4]})
    score = perplexity(signals, PerplexityOptions(prefer="middle")).score
    assert np.argmax(score) == 2
    assert score[0] == pytest.approx(score[1])


def test_el2n_is_the_stored_mean():
    np.testing.assert_allclose(el2n(SIGNALS, Options()).score, np.array(FULL) / 10)


def test_visual_necessity_is_the_loss_without_minus_with_the_image():
    found = visnec(SIGNALS, VisnecOptions())
    np.testing.assert_allclose(found.score, [0.5, -1.0, np.nan, 0.004])
    assert found.columns["verdict"].tolist() == ["necessary", "misaligned", None, "redundant"]


def test_a_gain_beyond_the_limit_has_no_score():
    found = visnec(SIGNALS, VisnecOptions(max_gain=0.1))
    np.testing.assert_array_equal(np.isnan(found.score), [True, False, True, False])


def test_information_gain_is_a_share_of_the_loss_without_the_image():
    signals = signals_of("aaa", mean_losses={"full": [1.0, 1.0, 0.0], "no_image": [2.0, np.nan, 0.0]})
    np.testing.assert_allclose(vig(signals, Options()).score, [0.5, np.nan, np.nan])


def test_noise_in_the_last_digits_does_not_rank():
    signals = signals_of("aa", mean_losses={"full": [1.0, 1.0 + 1e-8], "no_image": [2.0, 2.0]})
    for score in (perplexity(signals, PerplexityOptions()), visnec(signals, VisnecOptions()), vig(signals, Options())):
        assert score.score[0] == score.score[1]


def test_quantiles_of_ties_are_equal_and_missing_stays_missing():
    found = quantiles(np.array([1.0, 1.0, np.nan, 5.0]))
    assert found[0] == found[1] == pytest.approx(1 / 3)
    assert np.isnan(found[2])
    assert quantiles(np.array([np.nan])).size == 1
