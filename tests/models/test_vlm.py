"""Rendered rows."""

from dataclasses import replace

import numpy as np

from vsel_platform.models.vlm import IGNORED_LABEL, RenderedRow

ROW = RenderedRow(np.array([5, 6, 7, 8, 9]), np.array([-1, 0, 0, -1, 1]))


def test_labels_are_the_tokens_of_the_targets():
    assert ROW.labels.tolist() == [IGNORED_LABEL, 6, 7, IGNORED_LABEL, 9]
    assert ROW.n_targets == 3
    assert len(ROW) == 5


def test_fewer_targets_are_the_first_ones():
    assert ROW.with_targets(2).answer_index.tolist() == [-1, 0, 0, -1, -1]
    assert ROW.with_targets(0).n_targets == 0
    assert ROW.with_targets(9).labels.tolist() == ROW.labels.tolist()


def test_targets_know_whether_the_model_asks_them():
    row = replace(ROW, is_asked=np.array([True, False, True, False, False]))
    assert row.asked_targets.tolist() == [False, True, False]
    assert ROW.asked_targets.tolist() == [False] * 3
    assert row.with_targets(1).asked_targets.tolist() == [False]
