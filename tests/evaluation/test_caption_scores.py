import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsel_platform.evaluation.caption_scores import bleu, bleu_statistics, cider_d, rouge_l

WORDS = st.lists(st.sampled_from("abcde"), max_size=8)
GROUPS = st.lists(st.tuples(WORDS, st.lists(WORDS.filter(bool), min_size=1, max_size=3)), min_size=1, max_size=5)


def split(*texts):
    return [text.split() for text in texts]


def test_bleu_statistics_count_clipped_ngrams_and_the_closest_length():
    row = bleu_statistics(split("the the the cat"), [split("the cat sat", "the the dog runs fast")])[0]
    assert row.tolist() == [4, 3, 4, 3, 2, 1, 3, 2, 0, 0]


def test_bleu_by_hand():
    sums = bleu_statistics(split("a b c d"), [split("a b c e")]).sum(axis=0)
    assert bleu(sums, 1) == pytest.approx(3 / 4)
    assert bleu(sums, 2) == pytest.approx(math.sqrt(3 / 4 * 2 / 3))
    short = bleu_statistics(split("a b"), [split("a b c d")]).sum(axis=0)
    assert bleu(short, 1) == pytest.approx(math.exp(1 - 4 / 2))


def test_bleu_of_equal_captions_is_one_and_of_empty_ones_zero():
    assert bleu(bleu_statistics(split("a b c d e"), [split("a b c d e")]).sum(axis=0), 4) == pytest.approx(1)
    assert bleu(bleu_statistics([[]], [split("a b")]).sum(axis=0), 1) == 0
    assert np.isnan(bleu(np.zeros(10), 4))


def test_bleu_takes_many_resamples_at_once():
    rows = bleu_statistics(split("a b c", "b c d e"), [split("a b"), split("b c d")])
    sums = np.stack([rows.sum(axis=0), 2 * rows[0]])
    assert bleu(sums, 2).shape == (2,)
    assert bleu(sums, 2)[1] == pytest.approx(float(bleu(rows[0], 2)))


def test_cider_of_captions_equal_to_their_only_reference_is_ten():
    captions = split("a red dog runs fast", "two cats sleep on beds")
    np.testing.assert_allclose(cider_d(captions, [[caption] for caption in captions]), 10)


def test_cider_weighs_rare_words_and_ignores_words_of_every_image():
    references = [split("the dog"), split("the cat"), split("the cow")]
    common, rare, none = cider_d(split("the", "cat", ""), references)
    assert common == 0 and rare > 0 and none == 0


def test_cider_penalises_other_lengths_by_bigrams():
    references = [split("a b c d"), split("x y z w")]
    long = cider_d(split("a b c d e f g h", "q"), references)[0]
    exact = cider_d(split("a b c d", "q"), references)[0]
    assert 0 < long < exact == pytest.approx(10)


def test_one_image_alone_has_no_weights():
    assert cider_d(split("a b"), [split("a b")]).tolist() == [0]
    with pytest.raises(ValueError, match="no references"):
        cider_d(split("a"), [[]])


def test_rouge_takes_the_best_precision_and_the_best_recall():
    score = rouge_l(split("a x c"), [split("a b c", "a c")])[0]
    precision, recall = 2 / 3, 1
    assert score == pytest.approx((1 + 1.44) * precision * recall / (recall + 1.44 * precision))
    assert rouge_l(split("q", ""), [split("a"), split("a")]).tolist() == [0, 0]


@given(GROUPS)
def test_scores_stay_in_their_range_and_are_additive(groups):
    captions, references = [caption for caption, _ in groups], [found for _, found in groups]
    rows = bleu_statistics(captions, references)
    assert rows.shape == (len(groups), 10)
    for n in (1, 2, 3, 4):
        assert 0 <= bleu(rows.sum(axis=0), n) <= 1 + 1e-9
    assert ((cider_d(captions, references) >= 0) & (cider_d(captions, references) <= 10 + 1e-9)).all()
    assert ((rouge_l(captions, references) >= 0) & (rouge_l(captions, references) <= 1 + 1e-9)).all()


@given(GROUPS, st.randoms())
def test_scores_do_not_depend_on_the_order_of_images(groups, random):
    order = random.sample(range(len(groups)), len(groups))
    captions, references = [caption for caption, _ in groups], [found for _, found in groups]
    shuffled = cider_d([captions[i] for i in order], [references[i] for i in order])
    np.testing.assert_allclose(shuffled, cider_d(captions, references)[order])
