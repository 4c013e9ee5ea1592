from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from vsel_platform.demo.chance import Chance


def test_choices_depend_on_seed_and_label_alone() -> None:
    def stream(seed: int, label: str) -> list[int]:
        chance = Chance(seed, label)
        return [chance.below(1000) for _ in range(20)]

    assert stream(1, "pool") == stream(1, "pool")
    assert stream(1, "pool") != stream(2, "pool")
    assert stream(1, "pool") != stream(1, "evaluation")


def test_the_stream_is_the_same_on_every_machine() -> None:
    chance = Chance(12345, "pool")
    assert [chance.below(1000) for _ in range(5)] == PINNED


PINNED = [714, 889, 131, 978, 915]


@given(st.integers(0, 2**32), st.integers(1, 30), st.integers(0, 40))
def test_a_sample_holds_different_items(seed: int, n: int, count: int) -> None:
    sample = Chance(seed, "x").sample(range(n), count)
    assert len(sample) == len(set(sample)) == min(n, count)
    assert set(sample) <= set(range(n))


@given(st.integers(0, 2**32), st.integers(1, 12))
def test_a_cycle_gives_every_item_before_one_comes_again(seed: int, n: int) -> None:
    items = list(islice(Chance(seed, "x").cycle(range(n)), 3 * n))
    assert all(sorted(items[k * n : (k + 1) * n]) == list(range(n)) for k in range(3))


def test_a_cycle_of_nothing_ends() -> None:
    assert list(Chance(0, "x").cycle([])) == []


def test_frequencies_follow_the_probability() -> None:
    chance = Chance(7, "x")
    assert 0.2 < sum(chance.happens(0.25) for _ in range(2000)) / 2000 < 0.3
