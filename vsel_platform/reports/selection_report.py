"""A selection as a report: numbers, plots and the begin of the ranking, for the plot page and the Dagster UI."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from vsel_platform.config import RecipeSettings
from vsel_platform.methods.presets import OWN_PIPELINE
from vsel_platform.methods.registry import composition
from vsel_platform.pipeline import method_scores
from vsel_platform.pipeline.context import Context
from vsel_platform.reports import maps, plots
from vsel_platform.reports.data import add_counts, column_values, dataset_summary, scores_pointer
from vsel_platform.reports.map_data import scored_map
from vsel_platform.reports.pictures import PER_SECTION, Caption, Excerpt, distinct_pictures, excerpts, tiles
from vsel_platform.reports.plots import TaskBudget
from vsel_platform.reports.ranking import (
    RANKING_ROWS,
    RankedRow,
    ReasonPlace,
    first_of_reasons,
    ranked_rows,
    reason_places,
)
from vsel_platform.reports.style import counted, number
from vsel_platform.reports.thumbnails import contact_sheet
from vsel_platform.selection.budgets import budget_text

TYPICALITY_LABEL = "typicality [mean cosine to the nearest neighbours in the cluster]"
# Selections whose rows are chosen by typicality; the plots of others would show what the method never saw.
TYPICALITY_METHODS = ("presel",)


@dataclass(frozen=True, slots=True)
class Plot:
    """One plot: name, PNG bytes."""

    name: str
    png: bytes


@dataclass(frozen=True)
class SelectionReport:
    """Everything that the plot page of a selection says. `files` are labels -> file names beside the page."""

    recipe: str
    dataset: str
    method: str
    mode: str
    budget: str
    seed: int
    rounds: int
    n_selected: int
    n_rows: int
    reasons: dict[str, int]
    tasks: list[TaskBudget]
    ranking: list[RankedRow]
    places: list[ReasonPlace] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    plots: list[Plot] = field(default_factory=list)


def share_name(method: str) -> str:
    """What the weight of a task is a share of: PreSel's reference rows and text rows are set apart first."""
    return "Share of the image rows left after reference" if method == "presel" else "Share of the budget"


def share_of(method: str, task: TaskBudget) -> str:
    """Share of a task as text; PreSel gives text-only rows their budget beside the shares."""
    if method == "presel" and task.weight == 0 and task.budget:
        return "own stratum"
    return f"{task.weight:.1%}"


def selection_report(
    ctx: Context,
    recipe: str,
    subset: pa.Table,
    tasks: pa.Table,
    *,
    notes: Sequence[str] = (),
    files: Mapping[str, str] | None = None,
) -> SelectionReport:
    """Report of a selection from its rows (`selected_subset`) and task budgets (`selected_tasks`).

    The tables are passed in, so that the report can be made before they are published.
    """
    settings = ctx.project.recipe(recipe)
    summary = dataset_summary(ctx, settings.dataset)
    budgets = task_budgets(tasks)
    reasons: dict[str, int] = {}
    add_counts(reasons, subset["reason"])
    order = subset.take(pc.sort_indices(subset, [("rank", "ascending")]))
    places, ends = reason_places(order), _ends(order)
    first = first_of_reasons(order, places)
    ids = {sample for part in (first, *ends) for sample in part["sample_id"].to_pylist()}
    texts = excerpts(ctx, settings.dataset, ids)
    return SelectionReport(
        recipe=recipe,
        dataset=settings.dataset,
        method=settings.method,
        mode=settings.mode,
        budget=budget_text(settings.budget),
        seed=settings.seed,
        rounds=settings.rounds,
        n_selected=subset.num_rows,
        n_rows=summary.n_distinct if summary else 0,
        reasons=dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        tasks=budgets,
        ranking=ranked_rows(first, texts),
        places=places,
        notes=[*notes, *shortfalls(budgets)],
        files=dict(files or {}),
        plots=_plots(ctx, recipe, budgets, subset["sample_id"], ends, texts),
    )


def task_budgets(tasks: pa.Table) -> list[TaskBudget]:
    """Rows of `selected_tasks`, those with the most selected rows first."""
    names = ["task", "n_available", "n_reference", "budget", "n_selected", "weight", "difficulty"]
    found = [TaskBudget(**row) for row in tasks.select(names).to_pylist()]
    return sorted(found, key=lambda t: (-t.n_taken, -t.n_total, t.task))


def shortfalls(tasks: Sequence[TaskBudget]) -> list[str]:
    """A sentence for every task that has fewer selected rows than its budget."""
    return [
        f"Task {t.task}: {counted(t.budget - t.n_selected, 'row')} short of the budget of {number(t.budget)}; "
        f"{number(t.n_available)} are available."
        for t in sorted(tasks, key=lambda t: t.task)
        if t.n_selected < t.budget
    ]


def _ends(order: pa.Table) -> tuple[pa.Table, pa.Table]:
    """First and last rows by rank: of those with a score, because only their place says something about them."""
    scored = order.filter(pc.is_valid(order["score"]))
    rows = scored if scored.num_rows else order
    return rows.slice(0, RANKING_ROWS), rows.slice(max(0, rows.num_rows - RANKING_ROWS))


def _plots(
    ctx: Context,
    recipe: str,
    tasks: list[TaskBudget],
    selected: pa.ChunkedArray,
    ends: tuple[pa.Table, pa.Table],
    texts: dict[str, Excerpt],
) -> list[Plot]:
    settings = ctx.project.recipe(recipe)
    made: dict[str, bytes | None] = {
        "budgets": plots.budget_bars(tasks, title=f"What recipe {recipe} takes from each task")
    }
    scores = scores_pointer(ctx, settings.dataset, settings.mode)
    if settings.method in TYPICALITY_METHODS and scores is not None:
        ids = selected.combine_chunks()
        values, chosen = column_values(ctx, scores, "typicality", ids)
        title = f"How typical the rows are that recipe {recipe} selects"
        made["typicality"] = plots.histogram(values, chosen, title=title, xlabel=TYPICALITY_LABEL)
        data = scored_map(ctx, scores, ids)
        if data is not None:
            title = f"Where the rows of recipe {recipe} lie among the images of {settings.dataset}"
            made["embedding map"] = maps.embedding_map(
                data.vectors, data.tasks, data.selected, title=title, sampled=data.sampled
            )
    if settings.method not in OWN_PIPELINE:
        made |= _composed_plots(ctx, recipe, settings, selected)
    made["first and last rows"] = _ends_sheet(ctx, recipe, ends, texts)
    return [Plot(name, png) for name, png in made.items() if png is not None]


def _composed_plots(
    ctx: Context, recipe: str, settings: RecipeSettings, selected: pa.ChunkedArray
) -> dict[str, bytes | None]:
    """Scores of all rows and of the selected ones, and where they lie if there are image embeddings."""
    method = composition(ctx.project, settings)
    pointer = ctx.store.pointer(method_scores.TABLE, method_scores.partition(settings.dataset, method))
    if pointer is None:
        return {}
    ids = selected.combine_chunks()
    pool, chosen = column_values(ctx, pointer, "value", ids)
    histogram = plots.histogram(
        pool,
        chosen,
        title=f"Scores of the rows that recipe {recipe} selects",
        xlabel=f"{method.score.name} score, higher is more valuable",
    )
    found = scored_map(ctx, pointer, ids)
    if found is None:
        return {"scores": histogram}
    title = f"Where the rows of recipe {recipe} lie among the images of {settings.dataset}"
    shown = maps.embedding_map(found.vectors, found.tasks, found.selected, title=title, sampled=found.sampled)
    return {"scores": histogram, "embedding map": shown}


def _ends_sheet(ctx: Context, recipe: str, ends: tuple[pa.Table, pa.Table], texts: dict[str, Excerpt]) -> bytes | None:
    first, last = ([_caption(row) for row in end.to_pylist()] for end in ends)
    rows = "all rows" if ends[0]["score"].null_count else "rows with a score"
    head = distinct_pictures(first, texts)
    shown = {caption.sample_id for caption in head}
    tail = distinct_pictures([c for c in reversed(last) if c.sample_id not in shown], texts, PER_SECTION)[::-1]
    return contact_sheet(
        [
            ("First by rank", tiles(ctx, head, texts)),
            ("Last by rank", tiles(ctx, tail, texts)),
        ],
        title=f"Both ends of the ranking of recipe {recipe}",
        subtitle=f"a smaller budget keeps about the first rows; here {rows}, each picture once",
    )


def _caption(row: dict[str, object]) -> Caption:
    return Caption(str(row["sample_id"]), str(row["task"]), f"{row['rank']}: {row['reason']}")
