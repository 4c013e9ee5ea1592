"""Prompts about the rows of a window."""

import numpy as np
import pytest
from tiny_llava import picture, tiny_adapter

from vsel_platform.evaluation.answering import QuestionRow
from vsel_platform.evaluation.window_prompts import WindowPrompt, chances, generate_texts, rendered
from vsel_platform.models.sampling import Sampling
from vsel_platform.signals.windows import WindowOptions, windows

MODEL = tiny_adapter(template="plain")
ROWS = [QuestionRow(f"q{i}", (("user", f"<image>\nWhat is {i}?"),), ("image",)) for i in range(3)]
MOST = 4
SAMPLING = Sampling(1.0, 50)


@pytest.fixture
def window():
    (found,) = windows(MODEL, ROWS, picture, WindowOptions(batch_tokens=40))
    found.load_images(range(len(ROWS)))
    return found


def draws(window, counts):
    prompts = {i: rendered(window, i, MODEL.render_prompt, ROWS[i].turns) for i in counts}
    return [
        WindowPrompt(i, prompts[i], chances(0, "test", ROWS[i].sample_id, number, MOST))
        for i, count in counts.items()
        for number in range(count)
    ]


def test_texts_come_in_the_order_of_the_prompts(window):
    wanted = draws(window, {2: 3, 0: 2, 1: 1})
    together = generate_texts(MODEL, window, wanted, max_tokens=MOST, sampling=SAMPLING)
    alone = [generate_texts(MODEL, window, [own], max_tokens=MOST, sampling=SAMPLING)[0] for own in wanted]
    assert together == alone
    assert len(set(together)) > 3
    assert generate_texts(MODEL, window, [], max_tokens=MOST) == []


def test_a_group_is_divided_so_that_its_answers_stay_short(window, monkeypatch):
    from vsel_platform.evaluation import window_prompts

    sizes = []
    sample = MODEL.sample
    monkeypatch.setattr(window_prompts, "GROUP_TOKENS", 3 * MOST)
    monkeypatch.setattr(MODEL, "sample", lambda own, *a, **k: sizes.append(len(own)) or sample(own, *a, **k))
    wanted = draws(window, {0: 10})
    found = generate_texts(MODEL, window, wanted, max_tokens=MOST, sampling=SAMPLING)
    assert sorted(sizes) == [1, 3, 3, 3]
    monkeypatch.undo()
    assert found == generate_texts(MODEL, window, wanted, max_tokens=MOST, sampling=SAMPLING)


def test_turns_that_cannot_be_written_fail_their_row(window):
    assert rendered(window, 1, MODEL.render_prompt, (("narrator", "<image>"),)) is None
    assert window.failures[1].reason == "unusable_question"
    assert set(window.failures) == {1}


def test_chances_belong_to_seed_purpose_row_and_draw():
    first = chances(0, "a", "row", 0, 8)
    assert first.shape == (8,)
    assert ((first >= 0) & (first < 1)).all()
    assert np.array_equal(chances(0, "a", "row", 0, 4), first[:4])
    for other in (chances(1, "a", "row", 0, 8), chances(0, "b", "row", 0, 8), chances(0, "a", "row", 1, 8)):
        assert not set(other) & set(first)


def test_a_prompt_without_chances_cannot_be_drawn_from(window):
    (own,) = draws(window, {0: 1})
    with pytest.raises(ValueError, match="needs 5 numbers"):
        generate_texts(MODEL, window, [own], max_tokens=5, sampling=SAMPLING)
