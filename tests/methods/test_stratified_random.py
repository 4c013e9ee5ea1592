"""Stratified random: shares are kept, the draw belongs to ids and seed."""

import pytest

from vsel_platform.methods.stratified_random import stratified_random

IDS = [f"s{i:04d}" for i in range(500)]
TASKS = ["a" if i < 300 else "b" if i < 480 else "c" for i in range(500)]
IMAGES = [i % 10 != 0 for i in range(500)]


def draw(budget, seed=1, order=None):
    order = order or range(500)
    return stratified_random(
        [IDS[i] for i in order], [TASKS[i] for i in order], [IMAGES[i] for i in order], budget, seed=seed
    )


def test_every_task_keeps_its_share():
    assert {t.task: t.selected for t in draw(100).tasks} == {"a": 60, "b": 36, "c": 4}


def test_order_does_not_matter_and_the_seed_does():
    assert draw(77).rows == draw(77, order=list(reversed(range(500)))).rows
    assert draw(77).rows != draw(77, seed=2).rows


def test_a_larger_budget_keeps_most_of_a_smaller_one():
    small, large = ({r.sample_id for r in draw(n).rows} for n in (100, 200))
    assert len(small - large) == 0


@pytest.mark.parametrize(("budget", "rows", "shortfall"), [(1, 1, 0), (500, 500, 0), (600, 500, 100)])
def test_limits(budget, rows, shortfall):
    result = draw(budget)
    assert len(result.rows) == rows
    assert result.shortfall == shortfall
    assert [row.rank for row in result.rows] == list(range(1, rows + 1))
    assert {row.stratum for row in draw(500).rows} == {"image", "text"}
