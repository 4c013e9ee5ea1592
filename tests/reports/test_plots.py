import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.text import Text
from PIL import Image

from vsel_platform.reports import plots
from vsel_platform.reports.plots import TaskBudget
from vsel_platform.reports.style import MAX_PNG_BYTES

PNG = b"\x89PNG\r\n\x1a\n"


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def check(png: bytes | None) -> Image.Image:
    assert png is not None
    assert png.startswith(PNG)
    assert len(png) < MAX_PNG_BYTES
    image = Image.open(io.BytesIO(png))
    assert image.width == 720
    return image


def test_histogram_leaves_out_what_is_not_finite_and_says_how_many_rows(drawn):
    check(plots.histogram([0.1, 0.5, None, np.nan, np.inf] * 10, title="T", xlabel="cosine"))
    assert "30 rows, median 0.3" not in texts(drawn[0])
    assert "20 rows, median 0.3" in texts(drawn[0])
    assert {"T", "cosine", "rows"} <= set(texts(drawn[0]))


def test_histogram_shows_pool_and_selection_as_shares(drawn):
    values = np.linspace(0, 1, 101)
    check(plots.histogram(values, values[80:], title="T", xlabel="cosine"))
    assert "101 rows, median 0.5; 21 selected, median 0.9" in texts(drawn[0])
    assert {"all rows", "selected rows", "share of rows [%]"} <= set(texts(drawn[0]))
    pool, *_ = (patch for patch in drawn[0].axes[0].patches)
    assert pool.get_data().values.sum() == pytest.approx(100)


def test_histogram_is_not_squeezed_by_a_few_extreme_values(drawn):
    values = np.concatenate([np.linspace(0, 1, 200), [1e6, -1e6]])
    check(plots.histogram(values, title="T", xlabel="x"))
    assert "202 rows, median 0.5; 2 beyond the axis are in the outermost bars" in texts(drawn[0])
    assert drawn[0].axes[0].patches[0].get_data().values.sum() == 202


def test_histogram_names_its_line_only_where_it_is_in_view(drawn):
    for position in (0.5, 7.0):
        check(plots.histogram([0.0, 1.0], title="T", xlabel="x", line=(position, "no help")))
        check(plots.histogram([0.0, 1.0] * 20, title="T", xlabel="x", line=(position, "no help")))
    assert ["no help" in texts(figure) for figure in drawn] == [True, True, False, False]


def test_few_rows_are_points_not_blocks(drawn):
    check(plots.histogram([0.3, 0.3, 0.9], [0.9], title="T", xlabel="x"))
    strip = drawn[0].axes[0]
    assert not strip.patches
    assert [c.get_offsets()[:, 0].tolist() for c in strip.collections] == [[0.3, 0.3, 0.9], [0.9]]
    heights = strip.collections[0].get_offsets()[:, 1]
    assert heights[0] < heights[1]
    assert any("3 rows, one point each" in text for text in texts(drawn[0]))


def test_few_selected_rows_are_ticks_on_the_histogram(drawn):
    check(plots.histogram(np.linspace(0, 1, 100), [0.2, 0.8], title="T", xlabel="x"))
    ticks = drawn[0].axes[0].collections[0]
    assert [segment[0][0] for segment in ticks.get_segments()] == [0.2, 0.8]
    assert len(drawn[0].axes[0].patches) == 1
    assert "selected rows, one tick each" in texts(drawn[0])


@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=30))
def test_histogram_takes_any_numbers(values):
    png = plots.histogram(values, values[:3], title="T", xlabel="x")
    assert (png is None) == (not np.isfinite(values).any())


@pytest.mark.parametrize("values", [[], [None], [np.nan, None]])
def test_nothing_finite_is_no_plot(values):
    assert plots.histogram(values, title="T", xlabel="x") is None
    assert plots.loss_curve(values, title="T") is None
    assert plots.value_bars({str(i): v for i, v in enumerate(values)}, title="T", xlabel="x") is None


def test_no_rows_are_no_plot():
    assert plots.budget_bars([], title="T") is None


def bar_labels(figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_value_bars_are_sorted_and_named(drawn):
    check(plots.value_bars({"small": 1, "big": 2000, "$a": 30}, title="T", xlabel="rows"))
    assert bar_labels(drawn[0]) == ["big", r"\$a", "small"]
    assert [patch.get_width() for patch in drawn[0].axes[0].patches] == [2000, 30, 1]
    assert {"2,000", "30", "1"} <= set(texts(drawn[0]))


def test_a_missing_value_has_a_name_but_no_bar(drawn):
    check(plots.value_bars({"known": 0.5, "unknown": None}, notes={"known": "(n)"}, title="T", xlabel="x"))
    assert bar_labels(drawn[0]) == ["known", "unknown"]
    assert {"0.500 (n)", "no value"} <= set(texts(drawn[0]))


def test_bars_that_were_not_measured_are_hatched_and_explained(drawn):
    values = {"measured": 0.5, "guessed": 0.4, "unknown": None}
    check(
        plots.value_bars(values, title="T", xlabel="x", hatched={"guessed", "unknown"}, hatched_name="mean of others")
    )
    assert [bar.get_hatch() for bar in drawn[0].axes[0].patches[:2]] == [None, "////"]
    assert "mean of others" in texts(drawn[0])
    check(plots.value_bars(values, title="T", xlabel="x", hatched={"unknown"}, hatched_name="mean of others"))
    assert "mean of others" not in texts(drawn[1])


def test_many_bars_end_with_how_many_are_left(drawn):
    values = {f"task {i}": float(i) for i in range(191)}
    check(plots.value_bars(values, title="T", xlabel="rows", rest="more tasks"))
    assert len(bar_labels(drawn[0])) == plots.MAX_BARS
    assert bar_labels(drawn[0])[-1] == "(168 more tasks)"


def test_budget_bars_stack_reference_and_selected_and_tell_the_shortfall(drawn):
    tasks = [TaskBudget("few", 10, 2, 8, 5), TaskBudget("many", 2000, 100, 300, 300)]
    check(plots.budget_bars(tasks, title="T"))
    assert bar_labels(drawn[0]) == ["many", "few"]
    assert "407 of 2,112 rows; 3 rows short of the budget" in texts(drawn[0])
    assert {"400 of 2,100", "7 of 12", "budget", "available", "reference", "selected"} <= set(texts(drawn[0]))
    left = {(bar.get_x(), bar.get_width()) for bar in drawn[0].axes[0].patches}
    assert {(0, 2100), (0, 100), (100, 300), (0, 12), (0, 2), (2, 5)} == left


def test_budget_bars_of_many_tasks_count_all_of_them(drawn):
    check(plots.budget_bars([TaskBudget(f"t{i}", 10, 0, 1, 1) for i in range(40)], title="T"))
    assert "40 of 400 rows; every budget is met" in texts(drawn[0])
    assert bar_labels(drawn[0])[-1] == "(17 more tasks)"


def test_loss_curve_has_steps_and_their_mean(drawn):
    losses = [*np.linspace(4, 2, 100), float("nan")]
    check(plots.loss_curve(losses, title="T"))
    steps, mean = drawn[0].axes[0].lines
    assert len(steps.get_xdata()) == 100
    assert len(mean.get_xdata()) == 91
    assert {"step", "mean of 10 steps", "loss [nat/token]"} <= set(texts(drawn[0]))
    assert any("101 steps" in text and "1 step without a finite loss" in text for text in texts(drawn[0]))


def test_one_step_is_a_curve_too(drawn):
    check(plots.loss_curve([1.5], title="T"))
    assert "1 step; first 1.5, last 1.5" in texts(drawn[0])


def test_a_long_curve_is_thinned(drawn):
    check(plots.loss_curve(np.random.default_rng(0).random(50_000), title="T"))
    assert max(len(line.get_xdata()) for line in drawn[0].axes[0].lines) < 2 * plots.MAX_STEPS


def test_the_energy_of_a_known_spectrum_is_told():
    # 5 + 4 of 10 are 90 %; the last tenth is the fourth direction's.
    png = plots.energy_curve([1.0, 5.0, 4.0, 0.0], title="Energy")
    assert png is not None
    assert png.startswith(b"\x89PNG")
    assert plots.energy_curve([0.0, 0.0], title="Nothing") is None
    assert plots.energy_curve([], title="Nothing") is None
