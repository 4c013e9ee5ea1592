"""Token scores against the model's own loss."""

import numpy as np
import pytest
import torch
from tiny_llava import IMAGE_TOKENS, conversation, picture, tiny_adapter, tiny_tokenizer

from vsel_platform.models import scoring
from vsel_platform.models.scoring import score_batch, target_nll

ADAPTER = tiny_adapter()
CONVERSATIONS = [
    (conversation("<image>\nWhat colour is the bus?", "It is red.", "And now?", "white"), ["a"]),
    (conversation("Where is it, and how many people are on the street?", "On the street."), []),
    (conversation("<image>\nand <image>", "A dog on a mat."), ["a", "b"]),
    (conversation("What is <image> this?", "A cat"), ["c"]),
]


def features(images):
    return [ADAPTER.project(ADAPTER.tower_features(ADAPTER.preprocess(picture(i))[None]))[0] for i in images]


def reference(rendered, images):
    """Mean loss of one row by the model's own forward pass."""
    pixels = np.stack([ADAPTER.preprocess(picture(i)) for i in images]) if images else None
    with torch.no_grad():
        output = ADAPTER.model(
            input_ids=torch.from_numpy(rendered.input_ids)[None],
            pixel_values=None if pixels is None else torch.from_numpy(pixels),
            labels=torch.from_numpy(rendered.labels)[None],
        )
    targets = rendered.labels[1:]
    first = output.logits[0, :-1].argmax(-1).numpy() == targets
    return float(output.loss), first[targets >= 0]


def test_a_batch_gives_the_losses_of_the_rows_one_by_one():
    groups = [
        [ADAPTER.render(turns, len(images), condition) for condition in ("full", "no_question")]
        for turns, images in CONVERSATIONS
    ]
    scores = score_batch(ADAPTER, groups, [features(images) for _, images in CONVERSATIONS])
    for group, own, (_, images) in zip(groups, scores, CONVERSATIONS, strict=True):
        for rendered, score in zip(group, own, strict=True):
            loss, first = reference(rendered, images)
            assert score.nll.mean() == pytest.approx(loss, abs=1e-5)
            assert score.is_first.tolist() == first.tolist()
            assert len(score.answer) == rendered.n_targets


def test_rows_alone_and_in_a_group_agree():
    turns, images = CONVERSATIONS[0]
    rows = [ADAPTER.render(turns, 1, condition) for condition in ("full", "no_question")]
    together = score_batch(ADAPTER, [rows], [features(images)])[0]
    apart = score_batch(ADAPTER, [[row] for row in rows], [features(images)] * 2)
    for one, (other,) in zip(together, apart, strict=True):
        np.testing.assert_allclose(one.nll, other.nll, atol=1e-5)


def test_equal_rows_of_a_group_are_scored_both():
    row = ADAPTER.render(conversation("hi", "a cat"), 0)
    one, two = score_batch(ADAPTER, [[row, row]], [[]])[0]
    np.testing.assert_allclose(one.nll, two.nll, rtol=1e-5)


def test_a_row_cut_inside_an_image_still_has_its_answers_scored():
    turns = conversation("<image>\nWhat?", "A cat", "<image>\nAnd this?", "A dog")
    whole = ADAPTER.render(turns, 2)
    image_token = tiny_tokenizer().convert_tokens_to_ids("<image>")
    second_image = np.flatnonzero(whole.input_ids == image_token)[IMAGE_TOKENS]
    adapter = tiny_adapter(max_tokens=int(second_image) + 2)
    row = adapter.render(turns, 2)
    (score,) = score_batch(adapter, [[row]], [features(["a", "b"])])[0]
    (expected,) = score_batch(ADAPTER, [[whole]], [features(["a", "b"])])[0]
    np.testing.assert_allclose(score.nll, expected.nll[expected.answer == 0], atol=1e-5)


def test_logits_are_made_in_pieces_without_a_difference(monkeypatch):
    row = ADAPTER.render(conversation("hi", "There is a dog on a mat, and a cat."), 0)
    (whole,) = score_batch(ADAPTER, [[row]], [[]])[0]
    monkeypatch.setattr(scoring, "LOGIT_ROWS", 3)
    (pieces,) = score_batch(ADAPTER, [[row]], [[]])[0]
    np.testing.assert_allclose(pieces.nll, whole.nll, atol=1e-6)


def test_the_output_layer_sees_the_targets_alone(monkeypatch):
    rows = [[ADAPTER.render(turns, len(images))] for turns, images in CONVERSATIONS]
    seen = []
    original = ADAPTER.logits
    monkeypatch.setattr(ADAPTER, "logits", lambda states: (seen.append(len(states)), original(states))[1])
    score_batch(ADAPTER, rows, [features(images) for _, images in CONVERSATIONS])
    assert sum(seen) == sum(row.n_targets for (row,) in rows)


def test_the_log_softmax_is_float32_even_for_half_precision_logits():
    logits = torch.tensor([[10.0, -3.0, 0.5]])
    half = target_nll(logits.to(torch.bfloat16), torch.tensor([1]))
    assert half.dtype == torch.float32
    expected = -torch.log_softmax(logits.to(torch.bfloat16).float(), -1)[0, 1]
    assert float(half) == pytest.approx(float(expected), abs=1e-6)
