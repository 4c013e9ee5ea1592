"""Agreement of images and questions: the formula, missing vectors, direction, and any order of turns."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from array_signals import ArraySignals
from hypothesis import given
from hypothesis import strategies as st

from vsel_platform.config import parse_project
from vsel_platform.methods import alignment
from vsel_platform.methods.alignment import ClipScoreOptions, clip_score, joint_encoder


@dataclass
class QuestionSignals(ArraySignals):
    """Rows with questions: `questions` gives (row, place of the vector) of every user turn."""

    questions: list = field(default_factory=list)
    texts: np.ndarray | None = None

    def question_vectors(self):
        rows, places = np.array(self.questions, np.int64).reshape(-1, 2).T
        return rows, places, np.asarray(self.texts, np.float32)


def signals_with(images, vectors, questions, texts):
    """Rows whose image vector is `vectors[images[row]]`."""
    n = len(images)
    return QuestionSignals(
        [f"r{i:02}" for i in range(n)], ["t"] * n, [None if i < 0 else f"image{i}" for i in images],
        matrices={"image_embeddings": (images, np.asarray(vectors, np.float32))}, questions=questions, texts=texts,
    )  # fmt: skip


RIGHT, UP, DIAGONAL, LEFT = [2.0, 0.0], [0.0, 0.5], [3.0, 3.0], [-1.0, 0.0]
HALF = np.sqrt(0.5)


def test_the_score_is_the_mean_of_the_clipped_cosines_over_the_turns():
    signals = signals_with([0, 0, 1], [RIGHT, UP], [(0, 0), (1, 1), (1, 2), (2, 0)], [DIAGONAL, LEFT, RIGHT])
    found = clip_score(signals, ClipScoreOptions())
    np.testing.assert_allclose(found.score, [HALF, 0.5, HALF], atol=1e-6)
    np.testing.assert_allclose(found.columns["cosine"], [HALF, 0, HALF], atol=1e-6)


def test_rows_without_an_image_or_a_question_have_no_score():
    signals = signals_with([-1, 0, 0, 0, 1], [RIGHT, [0, 0]], [(0, 0), (1, -1), (3, 0), (3, -1), (4, 0)], [DIAGONAL])
    found = clip_score(signals, ClipScoreOptions())
    np.testing.assert_allclose(found.score, [np.nan, np.nan, np.nan, HALF, np.nan], atol=1e-6)
    np.testing.assert_allclose(found.columns["cosine"], [np.nan, np.nan, np.nan, HALF, np.nan], atol=1e-6)


def test_no_vectors_at_all_are_no_scores():
    nothing = np.empty((0, 2))
    for questions in ([], [(0, -1)]):
        assert np.isnan(clip_score(signals_with([-1, -1], nothing, questions, nothing), ClipScoreOptions()).score).all()


def test_low_and_middle_agreement_can_be_preferred():
    signals = signals_with([0, 0, 0], [RIGHT], [(0, 0), (1, 1), (2, 2)], [RIGHT, DIAGONAL, UP])
    order = {
        prefer: np.argsort(-clip_score(signals, ClipScoreOptions(prefer=prefer)).score).tolist()
        for prefer in ("high", "low", "middle")
    }
    assert (order["high"], order["low"], order["middle"][0]) == ([0, 1, 2], [2, 1, 0], 1)


@given(seed=st.integers(0, 1000), n=st.integers(1, 12), block=st.integers(1, 7))
def test_scores_are_those_of_a_plain_loop_in_any_blocks(seed, n, block):
    rng = np.random.default_rng(seed)
    images, vectors, texts = rng.integers(-1, 4, n), rng.normal(size=(4, 3)), rng.normal(size=(5, 3))
    questions = [(int(row), int(rng.integers(-1, 5))) for row in rng.integers(0, n, 3 * n)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alignment, "BLOCK_PAIRS", block)
        found = clip_score(signals_with(images, vectors, questions, texts), ClipScoreOptions()).score
    for row in range(n):
        own = [texts[place] for r, place in questions if r == row and place >= 0 and images[row] >= 0]
        cosines = [t @ vectors[images[row]] / np.linalg.norm(t) / np.linalg.norm(vectors[images[row]]) for t in own]
        expected = np.mean(np.maximum(cosines, 0)) if cosines else np.nan
        np.testing.assert_allclose(found[row], expected, atol=2e-6)


def test_noise_in_the_last_digits_does_not_rank():
    signals = signals_with([0, 1], [RIGHT, [2.0, 2e-7]], [(0, 0), (1, 0)], [DIAGONAL])
    first, second = clip_score(signals, ClipScoreOptions()).score
    assert first == second


def test_what_a_project_file_lacks_is_said():
    def lacks(**settings):
        return joint_encoder(
            parse_project(str({"name": "p", "datasets": {"d": {"source": "x"}}, **settings}), base_dir=".")
        )

    joint = {"model": "clip", "feature": "joint"}
    assert "`feature: joint`" in lacks()
    assert "`feature: joint`" in lacks(image_encoder=joint)
    assert "one checkpoint" in lacks(image_encoder=joint, text_encoder=joint | {"model": "other"})
    assert "one checkpoint" in lacks(image_encoder=joint | {"revision": "abc"}, text_encoder=joint)
    assert lacks(image_encoder=joint, text_encoder=joint | {"dtype": "bfloat16"}) is None
