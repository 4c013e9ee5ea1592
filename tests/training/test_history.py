"""What is measured at every step, as a tracker is told."""

import math

import pytest

from vsel_platform.training.history import History


def history(**options):
    return History(
        loss=[4.0, 2.0, 1.0],
        answer_loss=[4.0, 2.0, 1.0],
        question_loss=[math.nan, 3.0, math.nan],
        learning_rate=[1.0, 0.5, 0.25],
        rows=[4, 4, 2],
        tokens=[40, 40, 20],
        seconds=[1.0, 2.0, 2.0],
        **options,
    )


def test_losses_are_means_and_rates_are_of_all_the_time():
    assert history().means(1) == {
        "loss": 1.5, "answer_loss": 1.5, "question_loss": 3.0, "learning_rate": 0.25, "rows_per_s": 1.5,
        "tokens_per_s": 15.0,
    }  # fmt: skip


def test_a_loss_that_no_step_had_is_left_out():
    assert "question_loss" not in history().means(2)


def test_prototypes_are_those_that_were_looked_at_last():
    usage = [{"step": 0, "used": 2.0}, {"step": 50, "used": 3.0}]
    assert history(prototypes=usage).means(0)["prototypes_used"] == pytest.approx(3.0)
    assert "prototypes_step" not in history(prototypes=usage).means(0)
