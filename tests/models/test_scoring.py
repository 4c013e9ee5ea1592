"""Token scores against the model's own loss."""

import numpy as np
import pytest
import torch
from tiny_llava import IMAGE_TOKENS, conversation, picture, tiny_adapter, tiny_tokenizer

from vsel_platform.models import scoring
from vsel_platform.models.scoring import prediction_scores, score_batch, target_nll

pytestmark = pytest.mark.usefixtures("_prefixes")

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


def plain_scores(logits, target):
    """nll, entropy and EL2N of one prediction, by their formulas in float64."""
    p = np.exp(logits - logits.max())
    p /= p.sum()
    onehot = np.arange(len(p)) == target
    entropy = -sum(x * np.log(x) for x in p if x > 0)
    return -np.log(p[target]), entropy, np.sqrt(((p - onehot) ** 2).sum())


def test_entropy_and_el2n_are_those_of_the_formulas():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(0, 3, (40, 17)).astype(np.float32), rng.integers(0, 17, 40)
    nll, entropy, el2n, first = prediction_scores(torch.from_numpy(logits.copy()), torch.from_numpy(targets))
    expected = np.array([plain_scores(row, t) for row, t in zip(logits.astype(np.float64), targets, strict=True)])
    assert {column.dtype for column in (nll, entropy, el2n)} == {torch.float64}
    np.testing.assert_allclose(np.stack([nll, entropy, el2n], axis=1), expected, rtol=1e-5, atol=1e-6)
    assert first.tolist() == (logits.argmax(1) == targets).tolist()


def test_scores_of_certain_and_of_blind_predictions():
    size = 8
    blind = torch.zeros(1, size)
    certain = torch.full((2, size), -1e4)
    certain[:, 3] = 1e4
    _, entropy, el2n, _ = prediction_scores(torch.cat([blind, certain]), torch.tensor([0, 3, 5]))
    np.testing.assert_allclose(entropy, [np.log(size), 0, 0], atol=1e-6)
    np.testing.assert_allclose(el2n, [np.sqrt((1 - 1 / size) ** 2 + (size - 1) / size**2), 0, np.sqrt(2)], atol=1e-6)


def test_el2n_of_a_target_that_is_nearly_certain_keeps_its_digits():
    logits = np.zeros((1, 5))
    logits[0, 2] = 14.0
    _, _, el2n, _ = prediction_scores(torch.tensor(logits, dtype=torch.float32), torch.tensor([2]))
    assert float(el2n) == pytest.approx(plain_scores(logits[0], 2)[2], rel=1e-2)


def test_tokens_that_cannot_come_have_no_part():
    logits = torch.tensor([[0.0, float("-inf"), 1.0], [float("-inf"), 2.0, 2.0]])
    _, entropy, el2n, _ = prediction_scores(logits, torch.tensor([2, 1]))
    expected = [plain_scores(np.array([0.0, 1.0]), 1), plain_scores(np.array([2.0, 2.0]), 0)]
    np.testing.assert_allclose(entropy, [e for _, e, _ in expected], atol=1e-6)
    np.testing.assert_allclose(el2n, [e for _, _, e in expected], atol=1e-6)


def test_scores_of_a_batch_are_those_of_the_models_own_logits():
    groups = [[ADAPTER.render(turns, len(images))] for turns, images in CONVERSATIONS]
    scores = score_batch(ADAPTER, groups, [features(images) for _, images in CONVERSATIONS])
    for (row,), (score,), (_, images) in zip(groups, scores, CONVERSATIONS, strict=True):
        pixels = np.stack([ADAPTER.preprocess(picture(i)) for i in images]) if images else None
        with torch.no_grad():
            logits = ADAPTER.model(
                input_ids=torch.from_numpy(row.input_ids)[None],
                pixel_values=None if pixels is None else torch.from_numpy(pixels),
            ).logits[0]
        places = np.flatnonzero(row.answer_index >= 0)
        own = logits[places - 1].double().numpy()
        expected = np.array([plain_scores(x, t) for x, t in zip(own, row.input_ids[places], strict=True)])
        np.testing.assert_allclose(np.stack([score.nll, score.entropy, score.el2n], 1), expected, atol=1e-4)
