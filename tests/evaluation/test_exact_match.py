"""Exact match under teacher forcing."""

import logging

import numpy as np
import pytest
import torch
from tiny_llava import conversation, picture, tiny_adapter, tiny_model, tiny_tokenizer

from vsel_platform.errors import DataError
from vsel_platform.evaluation.exact_match import evaluate
from vsel_platform.signals.losses import LossRow

ADAPTER = tiny_adapter()
TOKENIZER = tiny_tokenizer()


def rows(n=6, tasks=("colour", "count")):
    turns = conversation("<image>\nWhat colour is the bus?", "It is red.", "How many?", "Two")
    return [LossRow(f"r{i}", turns, [f"i{i}"], task=tasks[i % len(tasks)]) for i in range(n)]


def greedy(turns, images, n_tokens):
    """Tokens that the model itself generates after the prompt of the first answer."""
    rendered = ADAPTER.render(turns, len(images))
    start = int(np.flatnonzero(rendered.answer_index == 0)[0])
    pixels = torch.from_numpy(np.stack([ADAPTER.preprocess(picture(i)) for i in images]))
    with torch.no_grad():
        return ADAPTER.model.generate(
            input_ids=torch.from_numpy(rendered.input_ids[:start])[None],
            attention_mask=torch.ones(1, start, dtype=torch.long),
            pixel_values=pixels,
            max_new_tokens=n_tokens,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )[0, start:].tolist()


def test_an_answer_is_exact_when_greedy_decoding_produces_it(monkeypatch):
    turns, images = conversation("<image>\nWhat is it?", "placeholder answer"), ["a"]
    rendered = ADAPTER.render(turns, 1)
    places = np.flatnonzero(rendered.answer_index == 0)
    produced = greedy(turns, images, len(places))
    for change, expected in ((None, 1.0), (0, 0.0), (len(places) - 1, 0.0)):
        ids = rendered.input_ids.copy()
        ids[places] = produced
        if change is not None:
            ids[places[change]] = (ids[places[change]] + 1) % len(TOKENIZER)
        forced = type(rendered)(ids, rendered.answer_index)
        monkeypatch.setattr(ADAPTER, "render", lambda *_, forced=forced: forced)
        (score,) = evaluate(ADAPTER, [LossRow("r", turns, images)], picture)
        assert (score.n_answers, score.exact_match) == (1, expected)


def perfect_after(token):
    """A model that always predicts `token` first."""
    model = tiny_model()
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.model.language_model.norm.weight.zero_()
    head = torch.nn.Linear(32, len(TOKENIZER))
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    head.bias.data[token] = 5.0
    model.lm_head = head
    return tiny_adapter(model=model)


def test_every_token_of_the_answer_must_be_right_not_only_some():
    model = perfect_after(TOKENIZER.eos_token_id)
    (score,) = evaluate(model, [LossRow("r", conversation("hi", "red"))], picture)
    assert (score.n_answers, score.exact_match) == (1, 0.0)


def test_answers_count_one_by_one_and_tasks_apart():
    scores = evaluate(ADAPTER, rows(6), picture)
    assert [(s.task, s.n_answers, s.n_failed) for s in scores] == [("colour", 6, 0), ("count", 6, 0)]


def test_the_loss_is_the_mean_over_the_tokens_of_the_task():
    own = rows(1)
    own.append(LossRow("s", conversation("hi", "A dog on a mat, and a cat."), task="colour"))
    (score,) = evaluate(ADAPTER, own, picture)
    total, count = 0.0, 0
    for row in own:
        rendered = ADAPTER.render(row.turns, len(row.images))
        pixels = [ADAPTER.preprocess(picture(i)) for i in row.images]
        with torch.no_grad():
            output = ADAPTER.model(
                input_ids=torch.from_numpy(rendered.input_ids)[None],
                pixel_values=torch.from_numpy(np.stack(pixels)) if pixels else None,
                labels=torch.from_numpy(rendered.labels)[None],
            )
        total += float(output.loss) * rendered.n_targets
        count += rendered.n_targets
    assert score.loss_mean == pytest.approx(total / count, abs=1e-5)


def test_failed_rows_are_counted_and_nothing_else():
    def images(image_id):
        if image_id == "i0":
            raise FileNotFoundError(image_id)
        return picture(image_id)

    colour, count = evaluate(ADAPTER, rows(4), images)
    assert (colour.n_answers, colour.n_failed) == (2, 1)
    assert (count.n_answers, count.n_failed) == (4, 0)


def test_a_task_without_a_usable_row_is_left_out_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        scores = evaluate(ADAPTER, [*rows(1), LossRow("bad", conversation("hi", ""), task="empty")], picture)
    assert [score.task for score in scores] == ["colour"]
    assert "task 'empty'" in caplog.text


@pytest.mark.parametrize("given", [[], [LossRow("bad", conversation("hi", ""))]])
def test_nothing_to_evaluate_is_an_error(given):
    with pytest.raises(DataError, match="no row can be evaluated"):
        evaluate(ADAPTER, given, picture)


def test_progress_counts_rows():
    seen = []
    evaluate(ADAPTER, rows(3), picture, on_batch=seen.append)
    assert seen == [3]
