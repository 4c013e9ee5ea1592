"""Selections side by side: overlap, coverage against random ones, and what one keeps and another drops."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import Any

import numpy as np

from vsel_platform.pipeline.compare import RANDOM_SEEDS, Comparison
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.cost_lines import duration
from vsel_platform.reports.html import cell, document, figure, section, table
from vsel_platform.reports.pictures import Caption, distinct_pictures, excerpts, tiles
from vsel_platform.reports.selection_report import Plot
from vsel_platform.reports.style import (
    FONT,
    INK,
    MUTED,
    POOL,
    SELECTED,
    WARNING,
    add_legend,
    count_axis,
    label,
    new_figure,
    number,
    style_axes,
    to_png,
)
from vsel_platform.reports.thumbnails import contact_sheet

MAX_SHEETS = 6
MAX_PLOTTED = 24
"""A plot of more selections would be taller than a screen."""
LEGEND = (
    "clusters, images: share of which a row is selected; if random: clusters of random selections of the same size;\n"
    "repeats: rows that repeat an image; train time: of fine-tuning on the rows, known after the first training here"
)
CANDIDATES = 400
NAME_LIMIT = 22
PANELS = (
    ("cluster_coverage", "clusters with a selected row", 100.0, "%"),
    ("image_coverage", "distinct images shown", 100.0, "%"),
    ("repeated_images", "rows that repeat an image", 1.0, "rows"),
    ("tokens", "text tokens", 1.0, "tokens"),
)


def overlap_map(found: Comparison) -> bytes:
    """Jaccard of every pair of selections as a matrix; of more than `MAX_PLOTTED`, the first."""
    found, note = _plotted(found)
    n = len(found.recipes)
    place = {name: i for i, name in enumerate(found.recipes)}
    values = np.full((n, n), np.nan)
    for pair in found.pairs:
        a, b = place[str(pair["recipe"])], place[str(pair["other"])]
        values[a, b] = values[b, a] = pair["jaccard"]
    expected = max(row["random_overlap_high"] for row in found.rows)
    picture = new_figure(
        150 + 34 * n,
        f"How much the selections of {found.dataset} share",
        f"shared rows over all rows of both (Jaccard); two random selections share up to {expected:.0%}{note}",
    )
    axes = picture.subplots()
    axes.imshow(np.ma.masked_invalid(values), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    names = _names(found)
    axes.set_xticks(range(n), labels=names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(n), labels=names)
    axes.tick_params(colors=INK, length=0, labelsize=9, labelfontfamily=FONT)
    for side in axes.spines.values():
        side.set_visible(False)
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "white" if value > 0.5 else INK
            axes.text(column, row, f"{value:.0%}", ha="center", va="center", size=8.5, color=colour, family=FONT)
    return to_png(picture)


def _plotted(found: Comparison) -> tuple[Comparison, str]:
    """The first recipes of a long comparison, and words for it."""
    if len(found.recipes) <= MAX_PLOTTED:
        return found, ""
    names = found.recipes[:MAX_PLOTTED]
    pairs = [pair for pair in found.pairs if pair["recipe"] in names and pair["other"] in names]
    note = f"; the first {MAX_PLOTTED} of {len(found.recipes)}"
    return replace(found, recipes=names, rows=found.rows[:MAX_PLOTTED], pairs=pairs), note


def _names(found: Comparison) -> list[str]:
    """Recipes as labels; of a long name begin and end, as names of one project often begin alike."""
    side = (NAME_LIMIT - 1) // 2
    shown = (name if len(name) <= NAME_LIMIT else f"{name[:side]}…{name[-side:]}" for name in found.recipes)
    return [label(name, NAME_LIMIT) for name in shown]


def _unknown(found: Comparison) -> dict[str, str]:
    """Measures that say nothing here, and why."""
    unknown = {} if (found.pool.clusters >= 0).any() else {"cluster_coverage": "no image has an embedding yet"}
    if not (found.pool.images >= 0).any():
        unknown |= dict.fromkeys(("image_coverage", "repeated_images"), "no row has an image")
    return unknown


def coverage_panels(found: Comparison) -> bytes:
    """What each selection covers, and the range of random selections of the same size, in one panel per measure."""
    found, note = _plotted(found)
    n = len(found.recipes)
    picture = new_figure(
        (150 + 22 * n) * 2,
        f"What the selections of {found.dataset} cover",
        f"points: selections; grey: range of {len(RANDOM_SEEDS)} random selections of the same size{note}",
        legend_px=16,
    )
    panels = picture.subplots(2, 2, sharey=True)
    unknown = _unknown(found)
    for axes, (name, text, scale, unit) in zip(panels.flat, PANELS, strict=True):
        style_axes(axes, xlabel=f"{text} [{unit}]", grid="x")
        axes.set_yticks(range(n), labels=_names(found))
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set_ylim(n - 0.5, -0.5)
        if unit != "%":
            count_axis(axes.xaxis)
        if name in unknown:
            axes.set_xticks([])
            place = {"transform": axes.transAxes, "ha": "center", "va": "center"}
            axes.text(0.5, 0.5, unknown[name], color=MUTED, size=9, family=FONT, **place)
        else:
            _points(axes, found, name, scale)
    first = panels.flat[0]
    first.plot([], [], "o", color=SELECTED, label="within the random range")
    first.plot([], [], "o", color=WARNING, label="outside of it")
    add_legend(first)
    # It stands in the place above the axes that the figure keeps, and may be wider than they are.
    first.get_legend().set_in_layout(False)
    return to_png(picture)


def _points(axes: Any, found: Comparison, name: str, scale: float) -> None:
    # Without a mark at its ends a range of one value would not be seen.
    ends = {"marker": "|", "markersize": 6.5, "markeredgewidth": 1.5}
    for row, values in enumerate(found.rows):
        low, high, own = (values[key] * scale for key in (f"{name}_random_low", f"{name}_random_high", name))
        outside = own < low or own > high
        axes.plot([low, high], [row, row], color=POOL, linewidth=7, solid_capstyle="butt", zorder=1, **ends)
        axes.plot([own], [row], "o", color=WARNING if outside else SELECTED, markersize=6, zorder=2)


def keep_drop_sheet(ctx: Context, found: Comparison, keeps: str, drops: str) -> bytes | None:
    """Rows, each picture once, that the one selects and the other does not, and the other way round."""
    both, counts = {}, {}
    for one, other in ((keeps, drops), (drops, keeps)):
        rows = found.selected[one][~np.isin(found.selected[one], found.selected[other])]
        counts[one] = len(rows)
        both[one] = [found.pool.sample_ids[i] for i in rows[:CANDIDATES].tolist()]
    texts = excerpts(ctx, found.dataset, {sample for ids in both.values() for sample in ids})
    tasks = _tasks(ctx, found, both)
    sections = []
    for one, other in ((keeps, drops), (drops, keeps)):
        captions = [Caption(sample, tasks.get(sample, "")) for sample in both[one]]
        shown = distinct_pictures(captions, texts)
        sections.append((f"{one} keeps, {other} drops ({counts[one]:,} rows)", tiles(ctx, shown, texts)))
    return contact_sheet(
        sections, title=f"{keeps} against {drops}", subtitle="the first rows by rank, each picture once"
    )


def _tasks(ctx: Context, found: Comparison, rows: dict[str, list[str]]) -> dict[str, str]:
    tasks: dict[str, str] = {}
    for recipe in rows:
        selection = ctx.store.read_partition("selected_subset", {"recipe": recipe}, ["sample_id", "task"])
        tasks |= dict(zip(selection["sample_id"].to_pylist(), selection["task"].to_pylist(), strict=True))
    return tasks


def comparison_plots(ctx: Context, found: Comparison) -> list[Plot]:
    """All plots of a comparison: overlap, coverage, and sheets of the first recipe against others."""
    made: dict[str, bytes | None] = {"overlap": overlap_map(found), "coverage": coverage_panels(found)}
    first = found.recipes[0]
    for other in sheet_recipes(found):
        made[f"{first} against {other}"] = keep_drop_sheet(ctx, found, first, other)
    return [Plot(name, png) for name, png in made.items() if png is not None]


def sheet_recipes(found: Comparison) -> list[str]:
    """Recipes that the first one is shown against: the next ones, a random one always among them if there is one."""
    others = found.recipes[1:]
    random = [str(row["recipe"]) for row in found.rows if row["method"] == "random" and row["recipe"] in others][:1]
    rest = [name for name in others if name not in random][: MAX_SHEETS - len(random)]
    return [name for name in others if name in (*rest, *random)]


def sheets_note(found: Comparison) -> str:
    """Which pairs have no contact sheet, and how to see them; empty if the first recipe is shown against all."""
    others, shown = len(found.recipes) - 1, len(sheet_recipes(found))
    if shown == others:
        return ""
    return (
        f"Contact sheets: {shown} of the {others} pairs of {found.recipes[0]}; "
        "`vsel compare A B --page FILE` shows any other pair."
    )


def comparison_page(ctx: Context, found: Comparison) -> str:
    """The page as one HTML document."""
    title = f"Comparison of selections of {found.dataset}"
    lead = f"{len(found.recipes)} selections, each against {len(RANDOM_SEEDS)} random ones of its size."
    note = sheets_note(found)
    shown = f'<p class="lead">{escape(note)}</p>' if note else ""
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">{escape(lead)}</p>',
        section("Selections", recipes_table(found)),
        section("Plots", "".join(figure(plot) for plot in comparison_plots(ctx, found)) + shown),
        section("Pairs", pairs_table(found)),
    ]
    return document(title, body)


def recipes_table(found: Comparison) -> str:
    """The selections as a table, the random range below each figure that has one."""
    headers = ["Recipe", "Method", "Rows", "Tasks", "Clusters", "Images", "Repeats", "Tokens", "In training"]
    unknown = _unknown(found)
    rows = [[cell(str(r["recipe"])), cell(str(r["method"])), *_figures(r, unknown)] for r in found.rows]
    legend = (
        "Small figures: the range of random selections of the same size. Tasks, clusters and images: share of which a "
        "row is selected. Repeats: rows that show the image of another. In training: tokens of all epochs."
    )
    return f'<p class="lead">{legend}</p>\n{table(headers, rows, numeric=range(2, 9))}'


def _figures(row: dict[str, Any], unknown: Collection[str]) -> list[str]:
    shares = dict.fromkeys(("task_coverage", "cluster_coverage", "image_coverage"), "{:.1%}".format)
    shown: dict[str, Callable[[float], str]] = {**shares, "repeated_images": number, "tokens": number}
    ranges = (cell("–", "n") if name in unknown else _with_range(row, name, show) for name, show in shown.items())
    return [cell(number(row["rows"]), "n"), *ranges, cell(number(row["training_tokens"]), "n")]


def _with_range(row: dict[str, Any], name: str, show: Callable[[float], str]) -> str:
    values = [row[key] for key in (name, f"{name}_random_low", f"{name}_random_high")]
    own, low, high = (show(value) for value in values)
    return cell(own, "n", low if low == high else f"{low} to {high}")


def pairs_table(found: Comparison) -> str:
    """Every pair, the least alike first."""
    ordered: Sequence[dict[str, Any]] = sorted(found.pairs, key=lambda p: (p["jaccard"], str(p["recipe"])))
    rows = [
        [
            cell(str(p["recipe"])),
            cell(str(p["other"])),
            cell(f"{p['jaccard']:.1%}", "n"),
            cell(number(p["shared_rows"]), "n"),
            cell("–" if p["rank_correlation"] is None else f"{p['rank_correlation']:.2f}", "n"),
        ]
        for p in ordered
    ]
    headers = ["Recipe", "Other", "Overlap (Jaccard)", "Shared rows", "Rank correlation of the scores"]
    return table(headers, rows, numeric=range(2, 5))


def as_text(found: Comparison, hours: Mapping[str, float | None]) -> str:
    """The comparison for a terminal; `hours` of fine-tuning by recipe, None where nothing is known."""
    width, unknown = max(len(name) for name in ("recipe", *found.recipes)), _unknown(found)
    lines = [
        f"{'recipe':{width}}  {'rows':>7} {'clusters':>9} {'if random':>16} {'images':>8} {'repeats':>9} "
        f"{'tokens':>10} {'train time':>10}"
    ]
    for row in found.rows:
        known = f"{_share(row, 'cluster_coverage'):>9} {_random_range(row):>16} {_share(row, 'image_coverage'):>8} "
        known += f"{'–' if 'repeated_images' in unknown else format(row['repeated_images'], ','):>9}"
        lines.append(
            f"{row['recipe']!s:{width}}  {row['rows']:>7,} {known} {row['tokens']:>10,.0f} "
            f"{_hours(hours[row['recipe']]):>10}"
        )
    lines += ["", LEGEND, "", f"{'pair':{2 * width + 3}}  {'overlap':>8} {'shared':>8} {'rank correlation':>17}"]
    for pair in sorted(found.pairs, key=lambda p: (p["jaccard"], str(p["recipe"]))):
        correlation = "–" if pair["rank_correlation"] is None else f"{pair['rank_correlation']:.2f}"
        names = f"{pair['recipe']} / {pair['other']}"
        lines.append(f"{names:{2 * width + 3}}  {pair['jaccard']:>8.1%} {pair['shared_rows']:>8,} {correlation:>17}")
    return "\n".join(lines)


def _share(row: Mapping[str, Any], name: str) -> str:
    return "–" if row[name] is None else f"{row[name]:.1%}"


def _random_range(row: Mapping[str, Any]) -> str:
    low, high = (row[f"cluster_coverage_random_{end}"] for end in ("low", "high"))
    return "–" if low is None else f"{low:.1%} to {high:.1%}"


def _hours(hours: float | None) -> str:
    return "unknown" if hours is None else duration(3600 * hours)
