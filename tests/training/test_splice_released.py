"""Images in place of their tokens, in both released versions."""

import pytest
import torch

from vsel_platform.training.splice_released import mean_loss, splice, splice_sq

TABLE = torch.arange(20.0)[:, None].expand(-1, 2)
FEATURES = torch.stack([torch.full((3, 2), 100.0 + i) for i in range(3)])
IDS = torch.tensor([[1, -200, 5, 6], [1, 7, 0, 0], [1, -200, 8, 0]])
LABELS = torch.tensor([[-100, -100, 5, 6], [-100, 7, -100, -100], [-100, -100, 8, -100]])
MASK = IDS != 0


def embed(ids):
    return TABLE[ids]


def firsts(embeddings):
    return embeddings[..., 0].tolist()


def test_llava_drops_padding_takes_features_in_order_and_skips_those_of_text():
    found = splice(IDS, LABELS, MASK, embed, FEATURES)
    assert firsts(found.embeddings) == [
        [1, 100, 100, 100, 5, 6], [1, 7, 0, 0, 0, 0], [1, 102, 102, 102, 8, 0],
    ]  # fmt: skip
    assert found.labels.tolist() == [
        [-100, -100, -100, -100, 5, 6], [-100, 7, *[-100] * 4], [*[-100] * 4, 8, -100],
    ]  # fmt: skip
    assert found.attention_mask.sum(1).tolist() == [6, 2, 5]


@pytest.mark.parametrize(("side", "row"), [("right", [1, 7, 0, 0]), ("left", [0, 0, 1, 7])])
def test_llava_cuts_after_the_splice_and_pads_on_a_side(side, row):
    found = splice(IDS, LABELS, MASK, embed, FEATURES, max_length=4, padding_side=side)
    assert firsts(found.embeddings)[0] == [1, 100, 100, 100]
    assert firsts(found.embeddings)[1] == row
    assert found.attention_mask[1].tolist() == [number > 0 for number in row]


def test_sq_llava_keeps_padding_and_shows_a_rows_image_for_all_its_tokens():
    ids = torch.tensor([[1, -200, -200, 5], [1, 7, 0, 0]])
    found = splice_sq(ids, torch.full_like(ids, 3), ids != 0, embed, FEATURES[:2])
    assert firsts(found.embeddings) == [[1, *[100] * 6, 5], [1, 7, 0, 0, 0, 0, 0, 0]]
    assert found.labels.tolist() == [[3, *[-100] * 6, 3], [3, 3, 3, 3, *[-100] * 4]]
    assert found.attention_mask.tolist() == [[True] * 8, [True, True, *[False] * 6]]


def test_the_loss_is_the_mean_over_the_next_tokens_that_are_not_ignored():
    logits = torch.zeros(1, 3, 4)
    logits[0, 0, 2] = 5.0
    expected = -logits[0, 0].log_softmax(0)[2]
    assert mean_loss(logits, torch.tensor([[-100, 2, -100]])).item() == pytest.approx(expected.item())
