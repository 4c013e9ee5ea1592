from dataclasses import replace

import numpy as np
import pytest
from answer_models import Answers
from figure_texts import colliding_texts
from matplotlib.colors import to_hex
from matplotlib.text import Text

from vsel_platform.evaluation.leaderboard import leaderboard
from vsel_platform.reports import leaderboard_plot as module
from vsel_platform.reports.leaderboard_plot import MAX_ROWS, decimals, leaderboard_plot
from vsel_platform.reports.style import MAX_PNG_BYTES, WARNING, to_png


@pytest.fixture
def figures(monkeypatch) -> list:
    drawn = []
    monkeypatch.setattr(module, "to_png", lambda figure: drawn.append(figure) or to_png(figure))
    return drawn


@pytest.fixture
def answers() -> Answers:
    return Answers(np.random.default_rng(0), 100)


def board(answers, qualities=None, full=True, **options):
    runs = answers.runs(qualities or {"good": 0.7, "same": 0.0, "bad": -0.7}, seeds=2, **options)
    runs += [answers.run("full", 100.0, seed, 1.5) for seed in range(2)] if full else []
    return leaderboard(runs, answers.clusters, n_resamples=500)


def test_every_budget_is_a_panel_with_its_labels_by_rank(answers, figures):
    found = board(answers)
    png = leaderboard_plot(found, title="T")
    assert len(png) < MAX_PNG_BYTES
    first, second = figures[0].axes
    names = [text.get_text() for text in first.get_yticklabels()]
    assert names == [row.label for row in found.rows if row.budget == 5.0]
    assert first.get_title(loc="left") == "5 % of the rows: 50 rows"
    assert second.get_title(loc="left") == "20 % of the rows: 200 rows"
    assert second.get_xlabel() == "exact match [percent]"


def test_verdicts_differ_in_marker_and_colour(answers, figures):
    found = board(answers)
    leaderboard_plot(found, title="T")
    markers = {}
    axes = figures[0].axes[0]
    names = [text.get_text() for text in axes.get_yticklabels()]
    for line in axes.lines:
        if line.get_marker() not in ("None", ""):
            markers[names[int(line.get_ydata()[0])]] = (line.get_marker(), to_hex(line.get_markerfacecolor()))
    assert markers["bad"] == ("v", WARNING)
    assert markers["good"][0] == markers["same"][0] == "o"
    assert markers["same"][1] == "#ffffff" != markers["good"][1]
    assert markers["random"][0] == "D"


def test_bars_are_intervals_of_the_difference_laid_at_the_value(answers, figures):
    found = board(answers)
    leaderboard_plot(found, title="T")
    axes = figures[0].axes[0]
    row = found.rows[0]
    bars = [tuple(line.get_xdata()) for line in axes.lines if list(line.get_ydata()) == [0, 0]]
    shift = row.value - row.difference
    assert (shift + row.adjusted_low, shift + row.adjusted_high) in [pytest.approx(bar) for bar in bars]
    assert (shift + row.difference_low, shift + row.difference_high) in [pytest.approx(bar) for bar in bars]
    low, high = axes.get_xlim()
    assert all(low < end < high for bar in bars for end in bar)


def test_the_legend_names_what_is_there_and_meets_no_other_text(answers, figures):
    leaderboard_plot(board(answers), title="T")
    figure = figures[0]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "better than random", "worse than random", "not distinguishable from random", "random, mean", "random runs",
        "95 % of random runs", "full data",
    ]  # fmt: skip
    assert colliding_texts(figure) == []


def test_without_random_and_full_data_values_have_their_own_intervals(answers, figures):
    found = board(answers, full=False, random=0)
    leaderboard_plot(found, title="T")
    figure = figures[0]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["not judged"]
    assert any("95 % interval of the value. Nothing is judged" in text.get_text() for text in figure.findobj(Text))


def test_random_selections_alone_are_points_and_few_of_them_have_no_band(answers, figures):
    found = leaderboard(answers.runs({}, (5.0,), random=2), answers.clusters, n_resamples=100)
    leaderboard_plot(found, title="T")
    texts = [text.get_text() for text in figures[0].findobj(Text)]
    assert "Points: mean over the seeds. Nothing is judged, see the notes." in texts
    assert "95 % of random runs" not in texts
    assert "random runs" in texts


def test_a_share_of_full_data_is_drawn_only_where_more_is_better(answers, figures):
    found = board(answers)
    for one in (found, replace(found, lower_is_better=True)):
        leaderboard_plot(one, title="T")
    more, less = ([text.get_text() for text in figure.findobj(Text)] for figure in figures)
    assert "value  of full" in more and any(text.endswith(" %") for text in more)
    assert "value" in less and not any(text.endswith(" %") for text in less)


def test_beyond_sixteen_labels_the_rest_is_a_line(answers, figures):
    leaderboard_plot(board(answers, {f"m{i}": 0.0 for i in range(20)}, budgets=(5.0,)), title="T")
    names = [text.get_text() for text in figures[0].axes[0].get_yticklabels()]
    assert (len(names), names[-1]) == (MAX_ROWS, "(6 more)")
    assert colliding_texts(figures[0]) == []


def test_losses_have_more_digits():
    assert (decimals("percent"), decimals("points"), decimals("nat/token")) == (1, 1, 3)
