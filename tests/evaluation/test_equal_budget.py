"""Plain answers within a budget of tokens, and the majority of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_llava import picture, tiny_adapter

from vsel_platform.evaluation.answering import QuestionRow
from vsel_platform.evaluation.equal_budget import affordable, plain_answers, spent, voted
from vsel_platform.evaluation.window_prompts import Generated
from vsel_platform.signals.windows import WindowOptions, windows

MODEL = tiny_adapter(template="plain")
ROWS = [QuestionRow(f"q{i}", (("user", f"<image>\nWhat is {i}?"),), (f"image {i % 2}",)) for i in range(4)]


def plain(budgets, rows=ROWS, seed=0, most=4):
    (window,) = windows(MODEL, rows, picture, WindowOptions())
    window.load_images(range(len(rows)))
    return plain_answers(MODEL, window, budgets, max_new_tokens=most, seed=seed)


def test_a_budget_is_used_up_but_never_exceeded():
    budgets = {0: 30, 1: 9, 3: 17}
    found = plain(budgets)
    assert found.keys() == budgets.keys()
    for i, answers in found.items():
        assert budgets[i] - 4 < spent(answers) <= budgets[i]
        assert len({answer.text for answer in answers}) > 1


def test_the_greedy_answer_is_there_whatever_the_budget():
    first = {i: answers[0] for i, answers in plain({0: 30, 1: 30}).items()}
    assert plain({0: 0, 1: 1}) == {i: [answer] for i, answer in first.items()}


def test_other_rows_and_budgets_do_not_change_what_is_drawn():
    found = plain({0: 40, 1: 40, 2: 40})
    assert plain({0: 40}, ROWS[2:3])[0] == found[2]
    assert plain({1: 20})[1] == found[1][: len(plain({1: 20})[1])]
    assert plain({1: 40}, seed=1)[1] != found[1]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9), st.integers(0, 200))
def test_what_is_affordable_fits_at_the_mean_length(lengths, budget):
    answers = [Generated("", length) for length in lengths]
    count, mean = affordable(answers, budget), sum(lengths) / len(lengths)
    assert count * mean <= max(0, budget - sum(lengths)) + 1e-9
    assert (count + 1) * mean > budget - sum(lengths) - 1e-9


@pytest.mark.parametrize(
    ("parsed", "winner"),
    [
        (["A"], 0),
        (["A", "B", "B"], 1),
        (["A", "B", "B", "A"], 0),
        (["A", "B", "C", "C", "B"], 1),
        ([None, None, "B"], 2),
        ([None, None], 0),
        (["A", None, None, "B", "B"], 3),
    ],
)
def test_the_first_answer_of_the_majority_wins(parsed, winner):
    assert voted(parsed) == winner
