"""When too many rows cannot be learned from."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsel_platform.errors import ModelError
from vsel_platform.models.images import ContentFailure
from vsel_platform.training.unusable import NOTHING_TO_LEARN, UnusableLimit


def failures(reason, *names, detail="it is gone"):
    return [ContentFailure(name, reason, detail) for name in names]


def test_the_refusal_says_how_many_why_and_what_to_do():
    limit = UnusableLimit(failures(NOTHING_TO_LEARN, "a"), 100, 99, 0.05)
    limit.check(failures("image_missing", "d", "c", "b", "e"))
    with pytest.raises(ModelError) as caught:
        limit.check(failures("image_missing", "d", "c", "b", "e", "f", detail="image i: FileNotFoundError"))
    assert str(caught.value) == (
        "training: 6 of 100 rows cannot be learned from, 6.0%, more than lora.max_unusable (5.0%). Most often (5): "
        "image_missing, such as row b: image i: FileNotFoundError. Put the images back where the dataset has them, or "
        "raise lora.max_unusable"
    )


def test_the_advice_is_that_of_the_most_frequent_reason():
    limit = UnusableLimit(failures(NOTHING_TO_LEARN, "a", "b"), 4, 2, 0.5)
    with pytest.raises(ModelError, match=r"\(2\): nothing_to_learn, such as row a: .* Look at vlm.max_tokens"):
        limit.check(failures("image_missing", "c"))


@given(st.integers(1, 300), st.data())
def test_rows_that_failed_before_and_in_their_turn_count_the_same(n_rows, data):
    n_left_out = data.draw(st.integers(0, n_rows - 1))
    n_failed = data.draw(st.integers(0, n_rows - n_left_out))
    bad = n_left_out + n_failed
    left_out = failures("x", *map(str, range(n_left_out)))
    assert not UnusableLimit(left_out, n_rows, n_rows - n_left_out, bad / n_rows).exceeded(n_failed)
    if bad:
        assert UnusableLimit(left_out, n_rows, n_rows - n_left_out, (bad - 0.5) / n_rows).exceeded(n_failed)


def test_in_a_part_of_an_epoch_the_planned_rows_count():
    limit = UnusableLimit(failures("x", "a", "b"), 100, 10, 0.2)
    assert limit.share(0) == 0.02
    assert not limit.exceeded(1)
    assert limit.exceeded(2)
