"""What the demo prints at its end: what was selected and learned, and where to look."""

from pathlib import Path

from vsel_platform.evaluation.gains import TaskComparison, regressions, unjudged
from vsel_platform.pipeline.benchmarks import read_benchmark
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.measured import compared_with_base
from vsel_platform.pipeline.trained import trained_on


def where_to_look(ctx: Context, project: Path, *, reselection_s: float, total_s: float) -> str:
    """Summary of the demo: what was selected, what was learned, what the new rows cost, where to go on."""
    lines = ["", *_counts(ctx), "", *_learned(ctx), ""]
    lines.append(f"reselection after the new rows: {reselection_s:.0f} s; the whole demo: {total_s:.0f} s")
    is_here = project.parent == Path.cwd() / "demo"
    option, folder = ("", "demo") if is_here else (f" -p {project}", project.parent)
    recipe = next(iter(ctx.project.recipes))
    lines += [
        "",
        "Where to look next (commands are in .venv/bin):",
        "  make ui                                  the Dagster UI: assets, lineage, plots, runs",
        "                                           open Assets: the first page is empty until a run is started there",
        f'  vsel sql{option} "from selected_subset select task, count(*) group by all"',
        f"  vsel explain{option} position:0 -r {recipe}   why a row is in or out",
        f"  vsel export{option} {recipe} --to {folder}/selected.json --manifest {folder}/manifest.json",
        f"  vsel verify {folder}/manifest.json --data {folder}/selected.json",
        f"  vsel lineage{option} selected_subset/recipe={recipe}",
    ]
    return "\n".join(lines)


def _counts(ctx: Context) -> list[str]:
    lines = []
    for dataset in ctx.project.datasets:
        manifest = ctx.store.require("manifest", {"dataset": dataset})
        bad = ctx.store.require("quarantine", {"dataset": dataset})
        lines.append(f"dataset {dataset}: {manifest.rows:,} rows accepted, {bad.rows:,} quarantined")
    for recipe in ctx.project.recipes:
        pointer = ctx.store.require("selected_subset", {"recipe": recipe})
        lines.append(f"recipe {recipe}: {pointer.rows:,} rows selected")
    return lines


def _learned(ctx: Context) -> list[str]:
    """Exact match per task on held-out rows: base model, and each recipe's checkpoint; what got worse."""
    benchmark = read_benchmark(ctx, next(iter(ctx.project.benchmarks)))
    tables = {
        recipe: compared_with_base(ctx, benchmark, recipe)
        for recipe, settings in ctx.project.recipes.items()
        if settings.train
    }
    found = {name: {row.task: row for row in rows} for name, rows in tables.items() if rows}
    if not found:
        return []
    width = max(20, *(len(name) for name in found))
    head = "held-out exact match [%]".ljust(26) + "answers".rjust(8) + "base".rjust(8)
    lines = [head + "".join(name.rjust(width + 2) for name in found)]
    for task, row in sorted(next(iter(found.values())).items()):
        shares = (_with_interval(r[task]) if task in r else "-" for r in found.values())
        cells = "".join(share.rjust(width + 2) for share in shares)
        lines.append(task.ljust(26) + str(row.n_answers).rjust(8) + f"{row.base:.1f}".rjust(8) + cells)
    for name, results in found.items():
        lines += [f"{name}: {sentence}" for sentence in _verdicts(list(results.values()))]
    lines += unjudged(row for results in found.values() for row in results.values())
    lines += _adapters(ctx, list(found))
    return lines


def _with_interval(row: TaskComparison) -> str:
    low, high = row.tuned_interval
    return f"{row.tuned:.1f} ({low:.0f} to {high:.0f})"


def _verdicts(results: list[TaskComparison]) -> list[str]:
    """Tasks that were not learned in this short training, and what the exact match above does not show."""
    same = ", ".join(row.task for row in results if row.verdict == "not learned")
    return ([f"not learned (no better than the base within 95 %): {same}."] if same else []) + regressions(results)


def _adapters(ctx: Context, recipes: list[str]) -> list[str]:
    """What the adapters were trained on: after a reselection they are of an earlier state of the selection."""
    trained = {recipe: trained_on(ctx, recipe) for recipe in recipes}
    lines = [f"{recipe}: the adapter was {found.sentence}." for recipe, found in trained.items() if found]
    if any(found is not None and found.is_earlier for found in trained.values()):
        lines.append("`vsel run --train` trains and evaluates adapters of the present selection.")
    return lines
