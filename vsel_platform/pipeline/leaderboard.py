"""Stage `leaderboard`: the trained recipes on a benchmark, against random selections and full data."""

import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from vsel_platform.config import RecipeSettings
from vsel_platform.evaluation.benchmark import Measure
from vsel_platform.evaluation.leaderboard import Leaderboard, leaderboard
from vsel_platform.evaluation.run_groups import FULL, RANDOM, Run
from vsel_platform.pipeline import evaluation
from vsel_platform.pipeline.asked import ASKED, asked_under
from vsel_platform.pipeline.benchmarks import Benchmark, read_benchmark
from vsel_platform.pipeline.context import Context, Inputs, StageResult, inputs_of
from vsel_platform.pipeline.measured import answers_pointer, headline_measures
from vsel_platform.pipeline.quality import publish_checked
from vsel_platform.pipeline.selection_cost import selection_seconds
from vsel_platform.pipeline.timing import record_rate
from vsel_platform.tables import TABLES

CODE = "leaderboard-3"
PAGE = "leaderboard_page"


def compared_recipes(ctx: Context, benchmark: str) -> list[str]:
    """Trained recipes whose stored evaluation on a benchmark is of their present checkpoint."""
    names = [name for name in ctx.project.recipes if takes_part(ctx, name)]
    return evaluation.current_recipes(ctx, benchmark, names)


def earlier_recipes(ctx: Context, benchmark: str) -> list[str]:
    """Trained recipes whose stored evaluation is of an earlier state of their selection, but was asked and judged as
    the present ones are: same base model, questions, images and reading of answers."""
    present = compared_recipes(ctx, benchmark)
    names = [name for name in ctx.project.recipes if name not in present and takes_part(ctx, name)]
    asked = asked_under(ctx, benchmark, evaluation.CODE)
    stored = {name: ctx.store.pointer("evaluation", {"recipe": name, "benchmark": benchmark}) for name in names}
    return [name for name, found in stored.items() if found is not None and found.metadata.get(ASKED) == asked]


def takes_part(ctx: Context, recipe: str) -> bool:
    """Whether a recipe is trained from the base model: what goes on from another has seen more than its own rows."""
    settings = ctx.project.recipe(recipe)
    return settings.train and settings.training.continue_from is None


def inputs(ctx: Context, benchmark: str) -> Inputs:
    """What the stage reads: the evaluations."""
    names = compared_recipes(ctx, benchmark)
    pointers = [found for name in names if (found := answers_pointer(ctx, name, benchmark)) is not None]
    evaluated = ctx.project.evaluation
    return inputs_of(
        pointers,
        recipes={name: [label_of(ctx.project.recipe(name)), ctx.project.recipe(name).dataset] for name in names},
        intervals=[evaluated.resamples, evaluated.seed],
        code=CODE,
    )


def is_current(ctx: Context, benchmark: str) -> bool:
    """Whether the stored leaderboard is of the present evaluations."""
    pointer = ctx.store.pointer("leaderboard", {"benchmark": benchmark})
    return pointer is not None and pointer.input_fingerprint == inputs(ctx, benchmark).fingerprint


def label_of(recipe: RecipeSettings) -> str:
    """Method with what sets it apart on its dataset: recipes of one label and budget differ in their seeds only.

    Rounds are not in it: they split a selection, and do not change it. Neither is what a random one does not look at.
    """
    if recipe.method == RANDOM:
        return FULL if recipe.budget.percent == 100 else RANDOM
    text = recipe.method
    if recipe.mode != "default":
        text += f" ({recipe.mode})"
    own = {name: getattr(recipe, name) for name in ("score", "quota", "diversity")} | dict(recipe.options)
    chosen = [f"{name}={value}" for name, value in sorted(own.items()) if value is not None]
    if recipe.text_policy != "proportional":
        chosen.append(f"text_policy={recipe.text_policy}")
    return " ".join([text, *chosen])


def run(ctx: Context, name: str) -> StageResult:
    """Compare all evaluated recipes on a benchmark and publish the table and the page."""
    start = time.perf_counter()
    wanted = inputs(ctx, name)
    benchmark = read_benchmark(ctx, name)
    boards = boards_of(ctx, benchmark, compared_recipes(ctx, name))
    lineage: dict[str, Any] = {
        "input_fingerprint": wanted.fingerprint,
        "inputs": wanted.references,
        "code_version": CODE,
        "run_id": ctx.run_id,
    }
    _publish_page(ctx, name, boards, lineage)
    metadata = {"recipes": len({recipe for board in boards for row in board.rows for recipe in row.recipes})}
    pointer = publish_checked(ctx, "leaderboard", {"benchmark": name}, _table(boards), metadata=metadata, **lineage)
    record_rate(ctx, "leaderboard", "", metadata["recipes"], time.perf_counter() - start)
    return StageResult(
        "leaderboard",
        {"benchmark": name},
        pointer.data_version,
        pointer.rows,
        seconds=time.perf_counter() - start,
        references=[pointer.reference],
        metadata=metadata,
    )


def boards_of(ctx: Context, benchmark: Benchmark, recipes: list[str]) -> list[Leaderboard]:
    """A leaderboard per dataset that rows were selected from and metric (the headline, the loss); none without
    recipes. A recipe is compared with random selections and full data of its own dataset."""
    members: dict[str, list[str]] = {}
    for name in sorted(recipes):
        members.setdefault(ctx.project.recipe(name).dataset, []).append(name)
    return [board for dataset in sorted(members) for board in _boards(ctx, benchmark, dataset, members[dataset])]


def _boards(ctx: Context, benchmark: Benchmark, dataset: str, recipes: list[str]) -> list[Leaderboard]:
    """The leaderboards of a dataset; of recipes that amount to the same selection the first is on them."""
    measures = {name: headline_measures(ctx, benchmark, name) for name in recipes}
    n_measures = min(len(own) for own in measures.values())
    if not n_measures:
        return []
    first: dict[tuple[str, float, int], Run] = {}
    notes = []
    for name in recipes:
        run = _run(ctx, name, measures[name][0])
        other = first.setdefault((run.label, run.budget, run.seed), run)
        if other is not run:
            notes.append(
                f"{name} has the method, budget and seed of {other.recipe} and is left out: one selection counts once."
            )
    intervals = ctx.project.evaluation
    return [
        leaderboard(
            [replace(run, measure=measures[run.recipe][place]) for run in first.values()],
            benchmark.clusters,
            dataset=dataset,
            notes=notes,
            n_resamples=intervals.resamples,
            seed=intervals.seed,
        )
        for place in range(n_measures)
    ]


def _run(ctx: Context, name: str, measure: Measure) -> Run:
    recipe = ctx.project.recipe(name)
    selected = ctx.store.require("selected_subset", {"recipe": name})
    checkpoint = ctx.store.require("finetuned_checkpoint", {"recipe": name})
    manifest = ctx.store.require("manifest", {"dataset": recipe.dataset})
    distinct = manifest.rows - int(manifest.metadata.get("duplicates", 0))
    share = recipe.budget.percent if recipe.budget.percent is not None else 100 * selected.rows / max(1, distinct)
    # Both seeds make a run; a number for each pair.
    seed = recipe.seed * 1_000_003 + (
        ctx.project.training.lora.seed if recipe.training.seed is None else recipe.training.seed
    )
    seconds = checkpoint.metadata.get("seconds")
    return Run(
        recipe=name,
        label=label_of(recipe),
        budget=round(share, 3),
        seed=seed,
        measure=measure,
        selection_seconds=selection_seconds(ctx, name),
        training_seconds=float(seconds) if isinstance(seconds, int | float) else None,
        n_rows=selected.rows,
    )


def _table(boards: list[Leaderboard]) -> pa.Table:
    schema = TABLES["leaderboard"].arrow_schema()
    rows = [
        {
            "dataset": board.dataset,
            "measure": board.measure,
            "unit": board.unit,
            **asdict(row),
            "recipes": list(row.recipes),
        }
        for board in boards
        for row in board.rows
    ]
    return pa.Table.from_pylist([{name: row[name] for name in schema.names} for row in rows], schema=schema)


def _publish_page(ctx: Context, benchmark: str, boards: list[Leaderboard], lineage: dict[str, Any]) -> None:
    from vsel_platform.reports.leaderboard import leaderboard_markdown, leaderboard_page

    measures = dict.fromkeys(board.measure for board in boards)
    with tempfile.TemporaryDirectory() as folder:
        for measure in measures:
            own = [board for board in boards if board.measure == measure]
            page = leaderboard_page(own, title=f"Leaderboard: {benchmark}, {measure}")
            (Path(folder) / f"{measure}.html").write_text(page, "utf-8")
            (Path(folder) / f"{measure}.md").write_text(leaderboard_markdown(own), "utf-8")
        ctx.store.publish_artifact(PAGE, {"benchmark": benchmark}, Path(folder), **lineage)
