"""Released data preparation: what it refuses."""

import pytest

from vsel_platform.errors import DataError
from vsel_platform.methods.presel_released_data import (
    add_unique_index,
    budgets_by_perplexity,
    remove_instruction,
    text_instruction,
)


def test_the_input_is_not_changed():
    entries = [{"id": 1, "unique_idx": "old"}]
    assert add_unique_index(entries) == [{"id": 1, "unique_idx": 0}]
    assert entries[0]["unique_idx"] == "old"


@pytest.mark.parametrize("key", ["id", "image", "unique_idx"])
def test_an_entry_without_a_key_is_named(key):
    entry = {"id": 1, "image": "a.jpg", "unique_idx": 0, "conversations": []}
    del entry[key]
    with pytest.raises(DataError, match=f"entry 0 has no '{key}'"):
        remove_instruction([entry])


def test_roles_must_alternate():
    with pytest.raises(DataError, match="turn 1 is from 'human', expected 'gpt'"):
        text_instruction([{"from": "human", "value": "a"}, {"from": "human", "value": "b"}])


def test_a_task_without_perplexity_is_refused():
    with pytest.raises(DataError, match="task 2 has no perplexity"):
        budgets_by_perplexity([[1], [2]], {1: 3.0, 2: float("nan")}, 10)
