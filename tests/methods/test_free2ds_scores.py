"""Free2DS as scores of a composed method: what is missing is neither best nor worst, and rows have no order."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from array_signals import ArraySignals
from hypothesis import given, settings
from hypothesis import strategies as st

from vsel_platform.config import parse_project
from vsel_platform.errors import SelectionError
from vsel_platform.methods import free2ds_scores
from vsel_platform.methods.api import AttentionTops, Picking
from vsel_platform.methods.compose import compose
from vsel_platform.methods.free2ds_released import (
    assign_to_centroids,
    released_centroids,
    released_draw,
    released_joint_scores,
    released_text_scores,
)
from vsel_platform.methods.free2ds_scores import (
    DrawOptions,
    Free2dsScoreOptions,
    ReleasedScoreOptions,
    free2ds,
    free2ds_released,
    ious,
    released_softmax_draw,
    trained_on,
)
from vsel_platform.methods.registry import composition
from vsel_platform.methods.text_clusters import cluster_texts

TOKENS = 20
TOP = 6


@dataclass
class TextSignals(ArraySignals):
    """Signals with the questions of every row (by number of the vector, None: no vector) and two models' top tokens."""

    questions: list = field(default_factory=list)
    texts: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    looks: tuple = ()

    def question_vectors(self):
        turns = [(i, -1 if q is None else q) for i, own in enumerate(self.questions) for q in own]
        rows, places = np.array(turns, np.int64).reshape(-1, 2).T
        return rows, places, self.texts

    def attention_tops(self):
        return self.looks


def tops(sets, n_tokens=TOKENS):
    """One model's maps; None: the row has none."""
    found = [np.array(sorted(s or []), np.int64) for s in sets]
    counts = np.array([0 if s is None else n_tokens for s in sets])
    return AttentionTops(counts, found, np.full(len(sets), np.nan))


def case(n=60, n_texts=25, seed=0, *, no_map=(), no_text=(), order=None):
    """A dataset with questions that repeat, rows of several turns, and rows that lack something."""
    rng = np.random.default_rng(seed)
    texts = rng.normal(size=(n_texts, 4)).astype(np.float32)
    texts[: n_texts // 2] += 5
    questions = [[int(q) for q in rng.integers(0, n_texts, rng.integers(1, 4))] for _ in range(n)]
    first = [set(rng.choice(TOKENS, TOP, replace=False).tolist()) for _ in range(n)]
    second = [set(rng.choice(TOKENS, TOP, replace=False).tolist()) for _ in range(n)]
    for i in no_map:
        (first, second)[i % 2][i] = None
    for i in no_text:
        questions[i] = [None] if i % 2 else []
    order = list(range(n)) if order is None else order
    pick = [order[i] for i in range(n)]
    return TextSignals(
        [f"r{i:03}" for i in pick],
        ["t"] * n,
        [None if i in no_map else f"image{i}" for i in pick],
        questions=[questions[i] for i in pick],
        texts=texts,
        looks=(tops([first[i] for i in pick]), tops([second[i] for i in pick])),
    )


def test_overlap_is_intersection_over_union_and_missing_without_both_maps():
    first, second = tops([{0, 1, 2}, {0, 1}, None, {3}, None]), tops([{1, 2, 3}, {0, 1}, {4}, None, None])
    np.testing.assert_array_equal(ious(first, second), [0.5, 1, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(ious(second, first), ious(first, second))
    assert ious(tops([{0}]), tops([{5}])).tolist() == [0]
    assert len(ious(tops([]), tops([]))) == 0


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(*[st.none() | st.sets(st.integers(0, TOKENS - 1), min_size=1)] * 2), max_size=9))
def test_overlap_of_many_rows_is_that_of_each(pairs):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(free2ds_scores, "ROWS_PER_BLOCK", 4)
        found = ious(tops([a for a, _ in pairs]), tops([b for _, b in pairs]))
    expected = [np.nan if a is None or b is None else len(a & b) / len(a | b) for a, b in pairs]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("n_turns", [500, 513, 700])
def test_the_turns_trained_on_are_those_that_faiss_draws(n_turns):
    vectors = np.random.default_rng(n_turns).normal(size=(n_turns, 4)).astype(np.float32)
    drawn = trained_on(n_turns, 2)
    assert len(drawn) == min(n_turns, 512)
    np.testing.assert_array_equal(released_centroids(vectors[drawn], 2), released_centroids(vectors, 2))


def test_maps_of_different_lengths_are_refused_unless_one_is_missing():
    small, large = tops([None, {0}], 9), tops([{0}, None], 16)
    assert np.isnan(ious(small, large)).all()
    with pytest.raises(SelectionError, match=r"have 16 and 9 tokens.*signals.attention_grid"):
        ious(tops([{0}], 16), tops([{0}], 9))


LACKING = {"no_map": (3, 4, 11), "no_text": (4, 20, 21)}


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_a_row_is_never_best_or_worst_for_what_it_lacks(alpha):
    found = free2ds(case(**LACKING), Free2dsScoreOptions(alpha=alpha))
    assert {i for i in range(60) if np.isnan(found.columns["image_score"][i])} == {3, 4, 11}
    assert {i for i in range(60) if np.isnan(found.columns["text_score"][i])} == {4, 20, 21}
    image, text = (
        np.nan_to_num(found.columns[c], nan=np.nanmedian(found.columns[c])) for c in found.columns if "score" in c
    )
    expected = (1 - alpha) * image + alpha * text
    lost = {4} | ({3, 11} if alpha == 0 else set()) | ({20, 21} if alpha == 1 else set())
    assert {i for i in range(60) if np.isnan(found.score[i])} == lost
    ranked = np.isfinite(found.score)
    np.testing.assert_allclose(found.score[ranked], expected[ranked], atol=1e-5)


def test_rows_without_an_image_stand_in_the_middle_of_the_image_score():
    signals = case(no_map=range(0, 60, 3))
    found = free2ds(signals, Free2dsScoreOptions(alpha=0.5))
    text_only = np.isnan(found.columns["image_score"])
    assert text_only.sum() == 20
    middle = np.nanmedian(found.columns["image_score"])
    np.testing.assert_allclose(
        found.score[text_only], 0.5 * middle + 0.5 * found.columns["text_score"][text_only], atol=1e-5
    )
    chosen = set(np.argsort(-found.score)[:20].tolist())
    assert 0 < len(chosen & set(np.flatnonzero(text_only).tolist())) < 20


def test_missing_parts_are_counted_in_a_note():
    (note,) = free2ds(case(**LACKING), Free2dsScoreOptions()).notes
    assert note == "3 rows have no attention map and 3 no text score; 1 have neither and cannot be selected"


def test_models_that_disagree_and_unusual_questions_are_valuable():
    signals = case()
    image = free2ds(signals, Free2dsScoreOptions(alpha=0))
    assert np.corrcoef(image.score, image.columns["iou"])[0, 1] < -0.9
    text = free2ds(signals, Free2dsScoreOptions(alpha=1))
    assert np.corrcoef(text.score, text.columns["text_distance"])[0, 1] > 0.9


def test_every_turn_counts_for_the_text_and_a_repeated_question_once_for_the_clusters():
    signals = case()
    rows, places, matrix = signals.question_vectors()
    distances = cluster_texts(matrix, 1, 42).distances
    expected = [distances[places[rows == i]].mean() for i in range(60)]
    found = free2ds(signals, Free2dsScoreOptions()).columns["text_distance"]
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_clusters_are_at_most_one_for_twenty_distinct_questions():
    signals = case(n_texts=85)
    at_most = free2ds(signals, Free2dsScoreOptions(text_clusters=1000)).columns["text_distance"]
    np.testing.assert_array_equal(
        at_most, free2ds(signals, Free2dsScoreOptions(text_clusters=4)).columns["text_distance"]
    )
    one = free2ds(signals, Free2dsScoreOptions(text_clusters=1)).columns["text_distance"]
    assert not np.allclose(at_most, one)


@given(st.randoms(use_true_random=False), st.integers(0, 5))
@settings(max_examples=15, deadline=None)
def test_the_order_of_the_rows_changes_no_score(random, seed):
    order = list(range(60))
    random.shuffle(order)
    options = Free2dsScoreOptions(text_clusters=3)
    straight, shuffled = (free2ds(case(seed=seed, order=o, **LACKING), options) for o in (None, order))
    np.testing.assert_array_equal(shuffled.score, straight.score[order])


@pytest.mark.parametrize("score", [free2ds, free2ds_released])
def test_without_any_question_the_image_decides(score):
    signals = case()
    signals.questions, signals.texts = [[] for _ in range(60)], np.zeros((0, 4), np.float32)
    options = Free2dsScoreOptions() if score is free2ds else ReleasedScoreOptions()
    found = score(signals, options)
    assert np.isnan(found.columns["text_distance"]).all()
    assert np.isfinite(found.score).all()
    assert np.corrcoef(found.score, found.columns["iou"])[0, 1] < -0.9


@pytest.fixture
def few_clusters(monkeypatch):
    """As many clusters as a small case can fill, where 1,000 would leave each turn alone in its own."""
    monkeypatch.setattr(free2ds_scores, "RELEASED_CLUSTERS", 5)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_released_score_is_that_of_the_released_functions(alpha, few_clusters):
    signals = case(**LACKING)
    found = free2ds_released(signals, ReleasedScoreOptions(alpha=alpha))
    rows, places, matrix = signals.question_vectors()
    turns = matrix[places[places >= 0]]
    distances = assign_to_centroids(turns, released_centroids(turns, 5))[1]
    texts = released_text_scores(distances, rows[places >= 0].tolist())
    text = np.array([texts.get(i, np.nan) for i in range(60)])
    expected = released_joint_scores(ious(*signals.looks), text, alpha)
    np.testing.assert_allclose(found.score, expected.combined, atol=1e-9)
    np.testing.assert_allclose(found.columns["image_score"], expected.iou, atol=1e-9)
    np.testing.assert_allclose(found.columns["text_score"], expected.text, atol=1e-9)
    assert expected.text.std() > 0.1


def test_as_released_what_is_missing_is_best_and_beside_it_is_not(few_clusters):
    signals = case(**LACKING)
    released = free2ds_released(signals, ReleasedScoreOptions())
    corrected = free2ds(signals, Free2dsScoreOptions())
    assert np.argmax(released.score) == 4
    assert released.columns["image_score"][[3, 4, 11]].tolist() == [1, 1, 1]
    assert released.columns["text_score"][[4, 20, 21]].tolist() == [1, 1, 1]
    assert np.isnan(corrected.score[4])
    assert np.nanargmax(corrected.score) not in (3, 4, 11, 20, 21)


def recipe(**values):
    values = {"dataset": "d", "method": "free2ds", **values}
    file = {"name": "p", "datasets": {"d": {"source": "x.json"}}, "recipes": {"r": values}}
    file["second_vlm"] = {"model": "other"}
    project = parse_project(str(file), base_dir=".")
    return composition(project, project.recipe("r"))


def test_the_released_draw_is_the_recipe_in_mode_released(few_clusters):
    signals, method = case(**LACKING), recipe(mode="released", options={"temperature": 0.5})
    scores = method.score.compute(signals, method.score_options).score
    result = compose(signals, scores, method, 15, seed=7)
    drawn = released_draw(scores, 15, temperature=0.5, seed=7)
    assert [r.sample_id for r in result.rows] == [signals.sample_ids[i] for i in drawn]
    assert result.notes[0].startswith("selection pressure")
    other = compose(signals, scores, method, 15, seed=8)
    assert [r.sample_id for r in other.rows] != [r.sample_id for r in result.rows]


def test_the_default_recipe_takes_the_best_and_leaves_what_cannot_rank():
    signals, method = case(**LACKING), recipe()
    scores = method.score.compute(signals, method.score_options).score
    result = compose(signals, scores, method, 60, seed=7)
    assert (len(result.rows), result.shortfall) == (59, 1)
    assert [r.score for r in result.rows] == sorted((s for s in scores if np.isfinite(s)), reverse=True)
    assert "r004" not in {r.sample_id for r in result.rows}
    assert result.notes == ["1 rows have no score and cannot be selected"]


def test_the_draw_is_of_the_group_s_members():
    scores = np.linspace(0, 1, 5)
    picking = Picking(np.array([2, 3, 5, 7, 11]), scores, 3, 1)
    found = released_softmax_draw(case(), picking, DrawOptions(temperature=0.2))
    np.testing.assert_array_equal(found, picking.members[released_draw(scores, 3, temperature=0.2, seed=1)])


@pytest.mark.parametrize("values", [{"alpha": 1.1}, {"alpha": -0.1}, {"text_clusters": 0}, {"scaling": "other"}])
def test_options_out_of_range_are_refused(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        Free2dsScoreOptions(**values)
