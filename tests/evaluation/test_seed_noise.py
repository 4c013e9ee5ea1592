import numpy as np
import pytest

from vsel_platform.evaluation.seed_noise import SeedNoise, pooled


def test_the_mean_of_every_group_is_removed():
    flat = np.zeros((2, 10))
    found = pooled([(np.array([1.0, 3.0]), flat), (np.array([101.0, 103.0]), flat), (np.array([7.0]), flat[:1])])
    assert found == SeedNoise(variance=2.0, question_variance=0.0, df=2)
    assert found.added == 2.0


def test_groups_of_one_seed_say_nothing():
    assert pooled([(np.array([1.0]), np.zeros((1, 5)))]) is None


def test_spread_that_the_questions_explain_is_not_added_again():
    """Models of one quality that err at random: all of their spread is in the bootstrap of the questions."""
    rng = np.random.default_rng(3)
    groups = []
    for _ in range(60):
        right = rng.random((4, 400)) < 0.5
        counts = rng.multinomial(400, np.full(400, 1 / 400), 200)
        groups.append((100 * right.mean(axis=1), 100 * right @ counts.T / 400))
    found = pooled(groups)
    assert found is not None
    assert found.df == 180
    assert found.variance == pytest.approx(100**2 * 0.25 / 400, rel=0.25)
    assert found.question_variance == pytest.approx(100**2 * 0.25 / 400, rel=0.05)


def test_normal_noise_of_drawn_variance_is_student_t():
    rng = np.random.default_rng(1)
    drawn = np.sqrt(SeedNoise(4.0, 0.0, 5).draws(rng, 200_000)) * rng.standard_normal(200_000)
    assert np.quantile(drawn, 0.975) == pytest.approx(2 * 2.5706, rel=0.02)


def test_drawn_variances_are_never_below_zero():
    drawn = SeedNoise(1.0, 2.0, 4).draws(np.random.default_rng(0), 1_000)
    assert drawn.min() == 0
    assert SeedNoise(1.0, 2.0, 4).added == 0
