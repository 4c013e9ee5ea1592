import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.text import Text
from PIL import Image

from vsel_platform.reports.maps import embedding_map, principal_plane
from vsel_platform.reports.style import MAX_PNG_BYTES


def texts(figure) -> set[str]:
    return {text.get_text() for text in figure.findobj(Text) if text.get_text()}


def test_plane_has_the_variance_of_the_strongest_directions():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(400, 6)) * [9, 4, 1, 1, 1, 1] + 100
    plane, shares = principal_plane(vectors)
    covariance = np.cov(vectors.T)
    strongest = np.sort(np.linalg.eigvalsh(covariance))[::-1]
    assert plane.var(axis=0, ddof=1) == pytest.approx(strongest[:2])
    assert shares == pytest.approx(tuple(strongest[:2] / strongest.sum()))
    assert plane.mean(axis=0) == pytest.approx([0, 0], abs=1e-9)


@settings(deadline=None, max_examples=25)
@given(st.integers(3, 20), st.integers(1, 8), st.integers(0, 1000))
def test_plane_follows_a_reordering_of_the_rows(n, d, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, d)) * np.arange(d, 0, -1) ** 2
    order = rng.permutation(n)
    assert principal_plane(vectors[order])[0] == pytest.approx(principal_plane(vectors)[0][order], abs=1e-6)


def test_one_dimension_has_no_second_component():
    plane, shares = principal_plane(np.arange(5.0)[:, None])
    assert shares == (1.0, 0.0)
    assert not plane[:, 1].any()


def test_equal_vectors_lie_on_one_point():
    plane, shares = principal_plane(np.ones((4, 3)))
    assert not plane.any()
    assert shares == (0.0, 0.0)


@pytest.mark.parametrize("vectors", [np.empty((0, 4)), np.empty((4, 0)), np.ones((2, 4)), np.full((5, 4), np.nan)])
def test_fewer_than_three_usable_vectors_are_no_map(vectors):
    assert embedding_map(vectors, ["t"] * len(vectors), title="T") is None


def points(axes) -> int:
    return sum(len(collection.get_offsets()) for collection in axes.collections)


def test_every_task_has_a_panel_that_shows_all_images_and_its_selected_ones(drawn):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 8))
    vectors[7] = np.nan
    tasks = ["$count" if i % 3 else "colour" for i in range(300)]
    png = embedding_map(vectors, tasks, np.arange(300) < 30, title="T", sampled=True)
    assert png is not None
    assert len(png) < MAX_PNG_BYTES
    assert Image.open(io.BytesIO(png)).width == 720
    shown = texts(drawn[0])
    assert {r"\$count: 19 of 199 images", "colour: 10 of 100 images", "selected", "not selected"} <= shown
    assert [points(axes) for axes in drawn[0].axes] == [299, 299]


def test_the_map_says_how_little_of_the_variance_it_shows(drawn):
    vectors = np.random.default_rng(0).normal(size=(300, 40))
    share = sum(principal_plane(vectors)[1])
    embedding_map(vectors, ["t"] * 300, title="T")
    assert f"300 images; a rough view: two components hold {share:.0%} of the variance" in texts(drawn[0])


def test_rows_that_were_not_selected_are_visible_on_white(drawn):
    embedding_map(np.random.default_rng(0).normal(size=(30, 8)), ["t"] * 30, [True] + [False] * 29, title="T")
    _, quiet, loud, *_ = drawn[0].axes[0].collections
    assert [len(c.get_offsets()) for c in (quiet, loud)] == [29, 1]
    red, green, blue, alpha = quiet.get_facecolor()[0]
    luminance = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
    assert alpha == 1
    assert 1.05 / (luminance + 0.05) > 3


def test_without_a_selection_nothing_is_called_selected(drawn):
    embedding_map(np.random.default_rng(0).normal(size=(30, 8)), ["t"] * 30, title="T")
    assert not any("selected" in text for text in texts(drawn[0]))


def test_tasks_beyond_the_panels_are_one_group(drawn):
    tasks = [f"task {i % 30:02}" for i in range(300)]
    embedding_map(np.random.default_rng(0).normal(size=(300, 4)), tasks, title="T")
    assert "(19 more tasks): 190 images" in texts(drawn[0])
    assert [points(axes) for axes in drawn[0].axes] == [300] * 12


@pytest.mark.parametrize("n_tasks", range(1, 13))
def test_any_number_of_panels_fits(n_tasks):
    tasks = [f"task {i % n_tasks}" for i in range(48)]
    assert embedding_map(np.random.default_rng(0).normal(size=(48, 4)), tasks, title="T") is not None
