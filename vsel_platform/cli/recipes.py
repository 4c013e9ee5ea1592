"""Commands about selections: run, select, explain, export, checkpoint, verify, replay."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vsel_platform.cli.app import (
    DEFAULT_PROJECT,
    JsonOption,
    ProjectOption,
    app,
    has_project,
    open_context,
    open_project,
    print_json,
    say,
)
from vsel_platform.cli.progress import console_progress
from vsel_platform.config import Project
from vsel_platform.errors import SelectionError, VerificationError

RecipeArgument = Annotated[str, typer.Argument(help="Recipe of the project file.")]


@app.command(epilog="Examples: vsel run presel_15 --dry-run;  vsel run presel_15 --train;  vsel run --engine presel_15")
def run(
    recipes: Annotated[list[str] | None, typer.Argument(help="Recipes; none: all.")] = None,
    project: ProjectOption = DEFAULT_PROJECT,
    train: Annotated[bool, typer.Option("--train", help="Fine-tune and evaluate too.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be computed, compute nothing.")] = False,
    engine: Annotated[
        bool, typer.Option("--engine", help="Run in this process, without a Dagster instance (no runs in the UI).")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Bring recipes up to date: only what is missing or stale is computed."""
    ctx = open_context(project, console_progress())
    names = list(recipes or ctx.project.recipes)
    for name in names:
        ctx.project.recipe(name)
    if train and (missing := not_evaluated(ctx.project, names)):
        typer.echo(missing, err=json)
    if dry_run:
        from vsel_platform.pipeline.estimate import estimate
        from vsel_platform.pipeline.used_models import used_models

        report = estimate(ctx, names, train=train)
        models = used_models(ctx.project, names, train=train) if report.lines else []
        if json:
            print_json({**report.to_dict(), "models": [asdict(model) for model in models]})
        else:
            say("\n".join([report.to_text(), *(model.to_text() for model in models)]))
        return
    if engine:
        from vsel_platform.pipeline.drive import drive

        results = drive(ctx, names, train=train, log=say if not json else (lambda _: None))
        if json:
            print_json([result.to_dict() for result in results])
        else:
            say(f"up to date; {len(results)} partitions were materialized")
        return
    from vsel_platform.cli.deployment import run_in_dagster

    raise typer.Exit(run_in_dagster(project, names, train=train))


def not_evaluated(project: Project, recipes: list[str]) -> str | None:
    """Why training the recipes ends without an evaluation; None if there is one, or nothing is trained."""
    if project.benchmarks or not any(project.recipe(name).train for name in recipes):
        return None
    return "nothing is evaluated: the project file names no benchmarks"


@app.command(epilog="Example: vsel select presel_15")
def select(recipe: RecipeArgument, project: ProjectOption = DEFAULT_PROJECT, json: JsonOption = False) -> None:
    """Select with the signals that are stored; no model runs."""
    from vsel_platform.methods.registry import scores_of
    from vsel_platform.pipeline import method_scores, scores, selection

    ctx = open_context(project)
    settings = ctx.project.recipe(recipe)
    if settings.method == "presel" and not scores.is_current(ctx, settings.dataset):
        scores.run(ctx, settings.dataset)
    for score in scores_of(ctx.project, [settings]):
        if not method_scores.is_current(ctx, score, settings.dataset):
            method_scores.run(ctx, score, settings.dataset)
    result = selection.run(ctx, recipe)
    if json:
        print_json(result.to_dict())
    else:
        say(f"{recipe}: {result.rows:,} rows selected in {result.seconds:.1f} s")


@app.command(epilog="Examples: vsel compare presel_15 visnec_15 random_15;  vsel compare --page comparison.html")
def compare(
    recipes: Annotated[
        list[str] | None, typer.Argument(help="Recipes of one dataset; none: all that selected.")
    ] = None,
    project: ProjectOption = DEFAULT_PROJECT,
    page: Annotated[Path | None, typer.Option(help="Write a page with plots and thumbnails here.")] = None,
    json: JsonOption = False,
) -> None:
    """Compare selections: what they share, cover and repeat, with a range of random ones of the same size."""
    from vsel_platform.pipeline import compare as comparing
    from vsel_platform.reports.comparison import as_text, comparison_page

    ctx = open_context(project)
    names = list(recipes or ())
    datasets = [ctx.project.recipe(name).dataset for name in names[:1]] or list(ctx.project.datasets)
    if len(datasets) > 1:
        raise SelectionError(f"name recipes of one dataset; the project has {', '.join(datasets)}")
    dataset = datasets[0]
    found = comparing.compare(ctx, dataset, names or comparing.compared_recipes(ctx, dataset))
    hours = {row["recipe"]: comparing.training_hours(ctx, row["rows"]) for row in found.rows}
    if page is not None:
        page.write_text(comparison_page(ctx, found), "utf-8")
    if json:
        rows = [row | {"training_hours": hours[row["recipe"]]} for row in found.rows]
        print_json({"dataset": dataset, "recipes": rows, "pairs": found.pairs})
    else:
        say(as_text(found, hours) + (f"\nwrote {page}" if page else ""))


@app.command(epilog="Examples: vsel plan;  vsel plan scalselect_15 --json")
def plan(
    recipes: Annotated[list[str] | None, typer.Argument(help="Recipes; none: all.")] = None,
    project: ProjectOption = DEFAULT_PROJECT,
    json: JsonOption = False,
) -> None:
    """Say what each signal runs of its model for one row: layers, tokens, logits, operations, bytes."""
    from vsel_platform.pipeline.row_costs import row_costs, to_dict, to_text

    ctx = open_context(project)
    row, costs = row_costs(ctx, list(recipes or ctx.project.recipes))
    if json:
        print_json(to_dict(row, costs))
    else:
        say(to_text(row, costs))


@app.command(epilog="Example: vsel methods")
def methods(project: ProjectOption = DEFAULT_PROJECT, json: JsonOption = False) -> None:
    """List the methods that a recipe can name, and the parts that it can exchange."""
    from vsel_platform.methods.describe import as_text, describe

    found = describe(None if project == DEFAULT_PROJECT and not has_project(project) else open_project(project))
    if json:
        print_json(found)
    else:
        say(as_text(found))


@app.command(epilog="Example: vsel explain 3f2a --recipe presel_15")
def explain(
    row: Annotated[str, typer.Argument(help="sample_id (a prefix is enough), source id, or position:N.")],
    recipe: Annotated[str, typer.Option("--recipe", "-r", help="Recipe of the project file.")],
    project: ProjectOption = DEFAULT_PROJECT,
    json: JsonOption = False,
) -> None:
    """Say why a row is in or out, and what would change it."""
    from vsel_platform.pipeline.explain import explain_row
    from vsel_platform.pipeline.refused import refused_rows

    ctx = open_context(project)
    try:
        explanation = explain_row(ctx, recipe, row)
    except SelectionError:
        refused = refused_rows(ctx, ctx.project.recipe(recipe).dataset, row)
        if not refused:
            raise
        if json:
            print_json({"recipe": recipe, "selected": False, "quarantine": [asdict(found) for found in refused]})
        else:
            say("\n".join(found.to_text() for found in refused))
        return
    if json:
        print_json(explanation.to_dict())
    else:
        say(explanation.to_text())


@app.command(epilog="Example: vsel export presel_15 --to selected.json")
def export(
    recipe: RecipeArgument,
    to: Annotated[Path, typer.Option("--to", help="File to write, in the format of the source.")],
    project: ProjectOption = DEFAULT_PROJECT,
    manifest: Annotated[Path | None, typer.Option(help="Write the manifest here too.")] = None,
) -> None:
    """Write the training file of a recipe's selection, and its manifest."""
    from vsel_platform.pipeline.selection import export_selection

    written = export_selection(open_context(project), recipe, to, manifest)
    say(f"wrote {written:,} rows to {to}" + (f" and the manifest to {manifest}" if manifest else ""))


@app.command(epilog="Examples: vsel checkpoint presel_15 --to adapter;  vsel checkpoint presel_15 --to model --merged")
def checkpoint(
    recipe: RecipeArgument,
    to: Annotated[Path, typer.Option("--to", help="New directory to write to.")],
    project: ProjectOption = DEFAULT_PROJECT,
    merged: Annotated[
        bool, typer.Option("--merged", help="The whole model, for other programs, instead of the LoRA adapter.")
    ] = False,
) -> None:
    """Write a recipe's trained adapter, or the model with it merged in, as files."""
    from vsel_platform.pipeline.checkpoints import write_checkpoint
    from vsel_platform.pipeline.trained import trained_on

    ctx = open_context(project)
    written = write_checkpoint(ctx, recipe, to, merged=merged)
    state = trained_on(ctx, recipe, "finetuned_checkpoint")
    say(f"{to}: {written:,} bytes" + (f"; {state.sentence}" if state else ""))


@app.command(epilog="Example: vsel verify manifest.json --data selected.json")
def verify(
    manifest: Annotated[Path, typer.Argument(help="Manifest of a selection.")],
    data: Annotated[Path, typer.Option("--data", help="Training file to compare.")],
    json: JsonOption = False,
) -> None:
    """Prove that a training file holds exactly the rows of a manifest (exit code 6 if it does not)."""
    from vsel_platform.pipeline.verify import verify_file

    result = verify_file(manifest, data)
    if json:
        print_json(
            {
                "matches": result.matches,
                "expected": result.expected,
                "found": result.found,
                "missing_ranks": result.missing,
                "unexpected_positions": result.unexpected,
            }
        )
    elif result.matches:
        say(f"{data} holds exactly the {result.expected:,} rows of {manifest}")
    if not result.matches:
        raise VerificationError(
            f"{data} does not match {manifest}: {result.found:,} rows for {result.expected:,}; "
            f"{len(result.missing)} missing (ranks {result.missing[:5]} ...), "
            f"{len(result.unexpected)} unexpected (positions {result.unexpected[:5]} ...)"
        )


@app.command(epilog="Example: vsel replay manifest.json")
def replay(
    manifest: Annotated[Path, typer.Argument(help="Manifest of a selection.")],
    project: ProjectOption = DEFAULT_PROJECT,
    json: JsonOption = False,
) -> None:
    """Make the selection of a manifest again, from the states of the store that it names, and compare."""
    from vsel_platform.pipeline.verify import replay_manifest

    result = replay_manifest(open_context(project), manifest)
    if json:
        print_json({"rows": result.rows, "selection_hash": result.selection_hash, "same": True})
    else:
        say(f"the same {result.rows:,} rows in the same order (selection hash {result.selection_hash[:16]}...)")
