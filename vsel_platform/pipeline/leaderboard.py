"""Stage `leaderboard`: the trained recipes on a benchmark, against random selections and full data."""

import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from vsel_platform.config import RecipeSettings
from vsel_platform.errors import NotMaterializedError
from vsel_platform.evaluation.leaderboard import Leaderboard, leaderboard
from vsel_platform.evaluation.run_groups import FULL, RANDOM, Run
from vsel_platform.pipeline import evaluation
from vsel_platform.pipeline.benchmarks import Benchmark, evaluation_key, read_benchmark
from vsel_platform.pipeline.context import Context, Inputs, StageResult, inputs_of
from vsel_platform.pipeline.measured import answers_pointer, headline_measures
from vsel_platform.pipeline.quality import publish_checked
from vsel_platform.pipeline.selection_cost import selection_seconds
from vsel_platform.pipeline.timing import record_rate
from vsel_platform.tables import TABLES

CODE = "leaderboard-1"
PAGE = "leaderboard_page"


def compared_recipes(ctx: Context, benchmark: str) -> list[str]:
    """Trained recipes whose stored evaluation on a benchmark is of their present checkpoint."""
    found = []
    for name in ctx.project.recipes:
        if takes_part(ctx, name):
            key = evaluation_key(name, benchmark)
            try:
                current = evaluation.is_current(ctx, key)
            except NotMaterializedError:
                continue
            if current:
                found.append(name)
    return found


def earlier_recipes(ctx: Context, benchmark: str) -> list[str]:
    """Trained recipes whose stored evaluation on the present questions is of an earlier state of their selection."""
    present = compared_recipes(ctx, benchmark)
    asked = {question.question_id for question in read_benchmark(ctx, benchmark).questions}
    found = []
    for name in ctx.project.recipes:
        pointer = answers_pointer(ctx, name, benchmark) if name not in present and takes_part(ctx, name) else None
        if pointer is not None:
            answered = ctx.store.read(pointer, ["question_id"])["question_id"].to_pylist()
            if asked <= set(answered):
                found.append(name)
    return found


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
        recipes={name: label_of(ctx, ctx.project.recipe(name)) for name in names},
        intervals=[evaluated.resamples, evaluated.seed],
        code=CODE,
    )


def is_current(ctx: Context, benchmark: str) -> bool:
    """Whether the stored leaderboard is of the present evaluations."""
    pointer = ctx.store.pointer("leaderboard", {"benchmark": benchmark})
    return pointer is not None and pointer.input_fingerprint == inputs(ctx, benchmark).fingerprint


def label_of(ctx: Context, recipe: RecipeSettings) -> str:
    """Method with what sets it apart: recipes of one label and budget differ in their seeds only."""
    text = recipe.method
    if recipe.method == RANDOM and recipe.budget.percent == 100:
        text = FULL
    if recipe.mode != "default":
        text += f" ({recipe.mode})"
    own = {name: getattr(recipe, name) for name in ("score", "quota", "diversity")} | dict(recipe.options)
    chosen = [f"{name}={value}" for name, value in sorted(own.items()) if value is not None]
    if recipe.text_policy != "proportional":
        chosen.append(f"text_policy={recipe.text_policy}")
    if len(ctx.project.datasets) > 1:
        chosen.append(f"dataset={recipe.dataset}")
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
    metadata = {"recipes": sum(len(row.recipes) for row in boards[0].rows) if boards else 0}
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
    """A leaderboard per metric (the headline, the loss); none without recipes."""
    measures = {name: headline_measures(ctx, benchmark, name) for name in recipes}
    intervals = ctx.project.evaluation
    return [
        leaderboard(
            [_run(ctx, name, own[place]) for name, own in measures.items()],
            benchmark.clusters,
            n_resamples=intervals.resamples,
            seed=intervals.seed,
        )
        for place in range(min((len(own) for own in measures.values()), default=0))
    ]


def _run(ctx: Context, name: str, measure: Any) -> Run:
    recipe = ctx.project.recipe(name)
    selected = ctx.store.require("selected_subset", {"recipe": name})
    checkpoint = ctx.store.require("finetuned_checkpoint", {"recipe": name})
    manifest = ctx.store.require("manifest", {"dataset": recipe.dataset})
    share = recipe.budget.percent if recipe.budget.percent is not None else 100 * selected.rows / max(1, manifest.rows)
    # Both seeds make a run; a number for each pair.
    seed = recipe.seed * 1_000_003 + (
        ctx.project.training.lora.seed if recipe.training.seed is None else recipe.training.seed
    )
    seconds = checkpoint.metadata.get("seconds")
    return Run(
        recipe=name,
        label=label_of(ctx, recipe),
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
        {"measure": board.measure, "unit": board.unit, **asdict(row), "recipes": list(row.recipes)}
        for board in boards
        for row in board.rows
    ]
    return pa.Table.from_pylist([{name: row[name] for name in schema.names} for row in rows], schema=schema)


def _publish_page(ctx: Context, benchmark: str, boards: list[Leaderboard], lineage: dict[str, Any]) -> None:
    from vsel_platform.reports.leaderboard import leaderboard_markdown, leaderboard_page

    with tempfile.TemporaryDirectory() as folder:
        for board in boards:
            title = f"Leaderboard: {benchmark}, {board.measure}"
            (Path(folder) / f"{board.measure}.html").write_text(leaderboard_page(board, title=title), "utf-8")
            (Path(folder) / f"{board.measure}.md").write_text(leaderboard_markdown(board), "utf-8")
        ctx.store.publish_artifact(PAGE, {"benchmark": benchmark}, Path(folder), **lineage)
