"""How many answers are kept together."""

from types import SimpleNamespace

import pytest

from vsel_platform.evaluation.answering import rows_of_a_batch


@pytest.mark.parametrize(
    ("image_tokens", "batch_tokens", "max_new_tokens", "rows"),
    [(576, 8192, 16, 12), (576, 16384, 1024, 9), (36, 8192, 16, 70), (576, 100, 16, 1)],
)
def test_a_kill_loses_about_a_batch_of_questions(image_tokens, batch_tokens, max_new_tokens, rows):
    model = SimpleNamespace(image_tokens=image_tokens)
    assert rows_of_a_batch(model, batch_tokens, max_new_tokens) == rows


def test_images_of_many_sizes_are_taken_as_large():
    assert rows_of_a_batch(SimpleNamespace(), 8192, 16) == 7
