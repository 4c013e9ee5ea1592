"""The page of a comparison: every recipe and pair, escaped; plots that are not blank, whatever is unknown."""

import io
from dataclasses import asdict, replace
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.text import Text
from PIL import Image
from report_store import NASTY, contents, full_context, publish

from vsel_platform.pipeline.compare import BANDED, RANDOM_SEEDS, Comparison
from vsel_platform.pipeline.cost_lines import duration
from vsel_platform.reports import comparison
from vsel_platform.reports.comparison import (
    LEGEND,
    as_text,
    comparison_page,
    comparison_plots,
    coverage_panels,
    keep_drop_sheet,
    overlap_map,
    pairs_table,
    recipes_table,
    sheet_recipes,
    sheets_note,
)
from vsel_platform.reports.style import MAX_PNG_BYTES
from vsel_platform.selection.comparison import Pool, facts, jaccard, random_bands, random_order

NAMES = ["typical", "drawn", '<i>"odd" & co</i>']
N_ROWS = len(contents())


def pool_of() -> Pool:
    rows = sorted(contents(), key=lambda row: row["sample_id"])
    images = sorted({row["image_ids"][0] for row in rows if row["image_ids"]})
    tasks = sorted({row["task"] for row in rows})
    shown = np.array([images.index(row["image_ids"][0]) if row["image_ids"] else -1 for row in rows])
    seeing = np.flatnonzero(shown >= 0)
    return Pool(
        [row["sample_id"] for row in rows],
        np.array([tasks.index(row["task"]) for row in rows]),
        shown[seeing],
        seeing,
        np.where(shown >= 0, shown % 9, -1),
        np.arange(20.0, 20 + len(rows)),
    )


def compared(selected: dict[str, np.ndarray], pool: Pool) -> Comparison:
    """A comparison with the facts of its rows, as the stage makes it."""
    orders = [random_order(pool, seed) for seed in RANDOM_SEEDS]
    rows, pairs = [], []
    for name, chosen in selected.items():
        own, bands = facts(pool, chosen), random_bands(pool, chosen, orders)
        row = {"recipe": name, "method": "presel", **asdict(own), "training_tokens": own.tokens * 2}
        row |= {"overlap_with_random": bands["overlap"].mean, "random_overlap_high": bands["random_overlap"].high}
        for measure in BANDED:
            row |= {f"{measure}_random_{end}": getattr(bands[measure], end) for end in ("low", "high")}
        rows.append(row)
    for number, (a, b) in enumerate(combinations(selected, 2)):
        correlation = None if number % 2 else 0.5 - number / 10
        shared = len(np.intersect1d(selected[a], selected[b]))
        pair = {"recipe": a, "other": b, "jaccard": jaccard(selected[a], selected[b]), "shared_rows": shared}
        pairs.append(pair | {"rank_correlation": correlation})
    return Comparison("shapes", list(selected), rows, pairs, selected, pool)


def many(n: int, name: str = "recipe_{}") -> Comparison:
    """A comparison of n selections of different sizes."""
    rng = np.random.default_rng(0)
    chosen = {name.format(i): rng.permutation(N_ROWS)[: 12 + i] for i in range(n)}
    return compared(chosen, pool_of())


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A store with three selections, and their comparison."""
    ctx = full_context(tmp_path_factory.mktemp("store"))
    pool, rows = pool_of(), {row["sample_id"]: row for row in contents()}
    selected = {}
    for seed, name in enumerate(NAMES):
        selected[name] = np.random.default_rng(seed).permutation(N_ROWS)[:16]
        chosen = [rows[pool.sample_ids[i]] for i in selected[name].tolist()]
        ranked = [
            row | {"rank": rank, "round": 1, "stratum": "image", "reason": "typical", "score": 0.5}
            for rank, row in enumerate(chosen, start=1)
        ]
        publish(ctx, "selected_subset", {"recipe": name.replace("/", "-")}, ranked)
    selected = {name.replace("/", "-"): chosen for name, chosen in selected.items()}
    return ctx, compared(selected, pool)


@pytest.fixture
def drawn(monkeypatch):
    """Figures that were drawn."""
    figures = []
    real = comparison.to_png
    monkeypatch.setattr(comparison, "to_png", lambda figure: (figures.append(figure), real(figure))[1])
    return figures


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def check(png: bytes) -> Image.Image:
    """A picture of the right width that is more than paper."""
    assert len(png) < MAX_PNG_BYTES
    image = Image.open(io.BytesIO(png)).convert("RGB")
    assert image.width == 720
    body = np.asarray(image)[58:]
    assert (body != 255).any(axis=2).mean() > 0.01
    assert len(np.unique(body.reshape(-1, 3), axis=0)) > 8
    return image


def assert_readable(figure) -> None:
    """Every text lies on the picture, and the numbers below an axis do not overlap."""
    canvas = figure.canvas.get_renderer()
    ticks = {axes: axes.xaxis.get_major_ticks() for axes in figure.axes}
    below = {id(tick.label1) for found in ticks.values() for tick in found}
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and id(text) not in below:
            box = text.get_window_extent(canvas)
            assert 0 <= box.x0 <= box.x1 <= figure.bbox.width, text.get_text()
            assert 0 <= box.y0 <= box.y1 <= figure.bbox.height, text.get_text()
    for axes, found in ticks.items():
        low, high = sorted(axes.get_xlim())
        labels = [tick.label1 for tick in found if low <= tick.get_loc() <= high and tick.label1.get_text()]
        spans = [label.get_window_extent(canvas) for label in labels if not label.get_rotation()]
        assert all(left.x1 < right.x0 for left, right in pairwise(spans))


@pytest.mark.parametrize(
    ("n", "name"), [(2, "r{}"), (14, "a_rather_long_name_of_a_recipe_{}"), (5, "$x_{0}^2$ 数据 \n{0}")]
)
def test_plots_hold_all_names_whatever_their_length(n, name, drawn):
    found = many(n, name)
    check(overlap_map(found))
    check(coverage_panels(found))
    for figure in drawn:
        assert_readable(figure)
    names = [label.get_text() for label in drawn[0].axes[0].get_yticklabels()]
    assert len(set(names)) == n
    assert names == [label.get_text() for label in drawn[0].axes[0].get_xticklabels()]
    assert names == [label.get_text() for label in drawn[1].axes[0].get_yticklabels()]


def test_the_matrix_holds_every_pair_twice_and_no_recipe_with_itself(drawn):
    found = many(4)
    overlap_map(found)
    (axes,) = drawn[0].axes
    cells = [(round(t.get_position()[1]), round(t.get_position()[0]), t.get_text()) for t in axes.texts]
    expected = set()
    for pair in found.pairs:
        a, b = found.recipes.index(pair["recipe"]), found.recipes.index(pair["other"])
        expected |= {(a, b, f"{pair['jaccard']:.0%}"), (b, a, f"{pair['jaccard']:.0%}")}
    assert set(cells) == expected
    assert len(cells) == 12
    highest = max(row["random_overlap_high"] for row in found.rows)
    assert any(f"two random selections share up to {highest:.0%}" in text for text in texts(drawn[0]))


def test_points_are_the_selections_and_bars_the_random_range(drawn):
    found = many(3)
    coverage_panels(found)
    for axes, (name, _, scale, _) in zip(drawn[0].axes, comparison.PANELS, strict=True):
        bars, points = axes.lines[0:6:2], axes.lines[1:6:2]
        for row, bar, point in zip(found.rows, bars, points, strict=True):
            own, low, high = (scale * row[key] for key in (name, f"{name}_random_low", f"{name}_random_high"))
            assert list(bar.get_xdata()) == [low, high]
            assert bar.get_solid_capstyle() == "butt"  # a rounded end reaches over values that are outside
            assert bar.get_marker() == "|"  # a range of one value is seen too
            assert list(point.get_xdata()) == [own]
            colour = comparison.SELECTED if low <= own <= high else comparison.WARNING
            assert point.get_color() == colour
    assert drawn[0].axes[0].yaxis_inverted()  # the first recipe is on top


def test_the_sheet_shows_what_one_keeps_and_the_other_drops(stored, monkeypatch):
    ctx, found = stored
    first, second = found.recipes[:2]
    sections = []
    real = comparison.contact_sheet
    monkeypatch.setattr(
        comparison, "contact_sheet", lambda parts, **options: (sections.extend(parts), real(parts, **options))[1]
    )
    png = keep_drop_sheet(ctx, found, first, second)
    check(png)
    assert png == keep_drop_sheet(ctx, found, first, second)
    for (heading, tiles), one, other in zip(sections, (first, second), (second, first), strict=False):
        own = [i for i in found.selected[one].tolist() if i not in set(found.selected[other].tolist())]
        assert heading == f"{one} keeps, {other} drops ({len(own)} rows)"
        assert 1 <= len(tiles) <= 6
        assert tiles[0].task == next(r["task"] for r in contents() if r["sample_id"] == found.pool.sample_ids[own[0]])


def test_equal_selections_have_no_sheet(stored):
    ctx, found = stored
    same = replace(found, selected=dict.fromkeys(found.recipes, found.selected["typical"]))
    assert keep_drop_sheet(ctx, same, *found.recipes[:2]) is None
    assert [plot.name for plot in comparison_plots(ctx, same)] == ["overlap", "coverage"]


def test_the_first_recipe_is_shown_against_all_others(stored):
    ctx, found = stored
    plots = comparison_plots(ctx, found)
    first, *others = found.recipes
    assert [plot.name for plot in plots] == ["overlap", "coverage", *(f"{first} against {other}" for other in others)]
    for plot in plots:
        check(plot.png)


@pytest.mark.parametrize(
    ("n", "random", "expected"),
    [
        (14, 12, ["recipe_1", "recipe_2", "recipe_3", "recipe_4", "recipe_5", "recipe_12"]),
        (14, 2, [f"recipe_{i}" for i in range(1, 7)]),
        (14, 0, [f"recipe_{i}" for i in range(1, 7)]),
        (7, 6, [f"recipe_{i}" for i in range(1, 7)]),
    ],
)
def test_the_random_recipe_is_among_the_shown_ones_and_what_is_left_out_is_said(n, random, expected):
    found = many(n)
    found.rows[random]["method"] = "random"
    assert sheet_recipes(found) == expected
    note = sheets_note(found)
    assert note.startswith("Contact sheets: 6 of the 13 pairs of recipe_0; `vsel compare A B") if n == 14 else not note


def test_the_page_says_that_it_shows_a_part(stored, monkeypatch):
    ctx, found = stored
    assert "Contact sheets:" not in comparison_page(ctx, found)
    monkeypatch.setattr(comparison, "MAX_SHEETS", 1)
    assert "Contact sheets: 1 of the 2 pairs of typical" in comparison_page(ctx, found)


def test_the_page_holds_every_recipe_pair_and_plot_and_escapes_names(stored):
    ctx, found = stored
    page = comparison_page(ctx, found)
    assert page.count("data:image/png;base64,") == 4
    for name in ("<td>typical</td>", "<td>drawn</td>", "<td>&lt;i&gt;&quot;odd&quot; &amp; co&lt;-i&gt;</td>"):
        assert page.count(name) >= 2
    assert "<i>" not in page
    assert NASTY not in page
    assert "<script" not in page
    for pair in found.pairs:
        assert f'<td class="n">{pair["jaccard"]:.1%}</td><td class="n">{pair["shared_rows"]}</td>' in page


def test_the_page_loads_nothing(stored):
    page = comparison_page(*stored)
    assert "default-src 'none'" in page
    assert "http://" not in page.replace("http-equiv", "")
    assert "https://" not in page


def test_pairs_stand_with_the_least_alike_first():
    found = many(5)
    table = pairs_table(found)
    shares = [float(part.split("%")[0]) for part in table.split('<td class="n">') if part.split("<")[0].endswith("%")]
    assert shares == sorted(shares)
    assert len(shares) == len(found.pairs) == 10
    assert table.count("–") == sum(pair["rank_correlation"] is None for pair in found.pairs)


def test_figures_stand_with_their_random_range():
    found = many(2)
    table, row = recipes_table(found), found.rows[0]
    low, high = row["cluster_coverage_random_low"], row["cluster_coverage_random_high"]
    small = f'<span class="small">{low:.1%} to {high:.1%}</span>'
    assert f"""<td class="n">{row["cluster_coverage"]:.1%}{small}</td>""" in table
    assert f"""<td class="n">{row["tokens"]:,.0f}<span""" in table
    assert table.count("(random") == 0


def test_what_nothing_is_known_about_is_not_called_zero(drawn):
    found = many(3)
    none = np.full(N_ROWS, -1)
    table = recipes_table(replace(found, pool=replace(found.pool, clusters=none)))
    assert table.count("–") == 3
    bare = replace(found, pool=replace(found.pool, clusters=none, images=none))
    assert recipes_table(bare).count("–") == 9
    check(coverage_panels(bare))
    assert_readable(drawn[0])
    shown = texts(drawn[0])
    assert shown.count("no image has an embedding yet") == 1
    assert shown.count("no row has an image") == 2
    nothing = {
        f"{name}_coverage{end}": None for name in ("cluster", "image") for end in ("", "_random_low", "_random_high")
    }
    bare = replace(bare, rows=[row | nothing for row in found.rows])
    lines = as_text(bare, dict.fromkeys(found.recipes)).splitlines()
    assert all(line.count("–") == 4 for line in lines[1:4])
    assert "%" not in "".join(lines[:4])


def test_the_text_has_a_line_for_every_recipe_and_pair(stored):
    found = stored[1]
    hours = dict.fromkeys(found.recipes) | {"typical": 2.5}
    lines = as_text(found, hours).splitlines()
    for row, line in zip(found.rows, lines[1:4], strict=True):
        assert line.startswith(row["recipe"])
        assert f"{row['cluster_coverage']:.1%}" in line
        assert f"{row['tokens']:,.0f}" in line
    assert lines[1].endswith(f" {duration(2.5 * 3600)}")
    assert all(line.endswith("unknown") for line in lines[2:4])
    start = 4 + len(f"\n{LEGEND}\n".split("\n"))
    assert "\n".join(lines[4:start]) == f"\n{LEGEND}\n"
    assert len(lines) == start + 1 + len(found.pairs)
    starts = {line.split("  ")[0] for line in lines[start + 1 :]}
    assert starts == {f"{pair['recipe']} / {pair['other']}" for pair in found.pairs}


@settings(max_examples=10, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=40), min_size=2, max_size=4, unique=True))
def test_columns_of_the_text_are_aligned_whatever_the_names(names):
    names = [" ".join(name.split()) or "x" for name in names]
    if len(set(names)) < len(names):
        names = [f"{name}{i}" for i, name in enumerate(names)]
    rng = np.random.default_rng(0)
    found = compared({name: rng.permutation(N_ROWS)[:20] for name in names}, pool_of())
    recipes, pairs = as_text(found, dict.fromkeys(names)).split(f"\n\n{LEGEND}\n\n")
    for block in (recipes, pairs):
        assert len({len(line) for line in block.split("\n")}) == 1


def test_a_comparison_of_many_selections_plots_the_first_and_says_so(drawn):
    pool = pool_of()
    selected = {f"recipe_{i:02}": np.arange(i % 5, N_ROWS, 3) for i in range(60)}
    found = compared(selected, pool)
    for plot in (overlap_map, coverage_panels):
        assert len(plot(found)) <= MAX_PNG_BYTES
    for figure in drawn:
        words = [text.get_text() for text in figure.findobj(Text)]
        assert any("the first 24 of 60" in text for text in words)
        assert "recipe_23" in words and "recipe_24" not in words
