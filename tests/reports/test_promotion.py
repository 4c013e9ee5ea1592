import numpy as np
import pytest
from answer_models import Answers
from figure_texts import colliding_texts
from matplotlib.colors import to_hex
from report_store import NASTY

from vsel_platform.evaluation.promotion import decide
from vsel_platform.reports import promotion as module
from vsel_platform.reports.promotion import promotion_markdown, promotion_page, promotion_plot
from vsel_platform.reports.style import MAX_PNG_BYTES, PAPER, to_png

NAMES = {"candidate": "new", "champion": "old"}


def ruling(quality: float, n_clusters: int = 300, **options):
    answers = Answers(np.random.default_rng(0), n_clusters, 1, seed_sd=0.0, own=0.3)
    return decide([answers.measure(quality)], [answers.measure()], answers.clusters, **options)


def test_the_page_tells_ruling_reason_numbers_and_rule():
    found = ruling(0.5)
    page = promotion_page(found, candidate=NASTY, champion="old")
    assert NASTY not in page
    assert "https://" not in page
    assert page.count("data:image/png;base64,") == 1
    for text in ("Better than the champion beyond the interval", "takes the place of old", "no, one seed each"):
        assert text in page
    assert f"{found.low:+.2f} to {found.high:+.2f}" in page


def test_a_champion_that_stays_is_told_with_the_reason():
    text = promotion_markdown(ruling(-0.8), **NAMES)
    assert text.startswith("old stays, new is not promoted.\n\nWorse than the champion beyond the interval")
    assert "all below 0 percent points" in text
    assert "below -5 percent points" in text


def test_without_an_interval_there_is_no_plot_and_dashes():
    found = ruling(0.5, n_clusters=10)
    assert promotion_plot(found, title="T") is None
    assert "| 95 % interval | – to – |" in promotion_markdown(found, **NAMES)
    assert "<img" not in promotion_page(found, **NAMES)


@pytest.mark.parametrize(
    "found",
    [ruling(0.5), ruling(-0.8), ruling(0.0), ruling(0.0, margin=1.0, max_loss=1.5), ruling(0.0, max_loss=40)],
    ids=["better", "worse", "equal", "narrow", "tolerant"],
)
def test_texts_of_the_plot_meet_no_other(found, monkeypatch):
    drawn = []
    monkeypatch.setattr(module, "to_png", lambda figure: drawn.append(figure) or to_png(figure))
    assert len(promotion_plot(found, title="T")) < MAX_PNG_BYTES
    (figure,) = drawn
    low, high = figure.axes[0].get_xlim()
    assert low < found.low < found.high < high
    assert low < -found.max_loss
    assert colliding_texts(figure) == []
    values = [text for text in figure.axes[0].texts if text.get_text()[0] in "+-0123456789"]
    assert values
    assert all(to_hex(text.get_bbox_patch().get_facecolor()) == PAPER for text in values), "no line runs through them"
