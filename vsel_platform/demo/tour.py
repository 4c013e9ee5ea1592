"""What the demo prints at its end: what was selected and learned, and where to look."""

from pathlib import Path

from vsel_platform.pipeline.context import Context


def where_to_look(ctx: Context, project: Path, *, reselection_s: float, total_s: float) -> str:
    """Summary of the demo: what was selected, what was learned, what the new rows cost, where to go on."""
    lines = ["", *_counts(ctx), "", *_learned(ctx), ""]
    lines.append(f"reselection after the new rows: {reselection_s:.0f} s; the whole demo: {total_s:.0f} s")
    option = "" if project.parent.name == "demo" and project.parent.parent == Path.cwd() else f" -p {project}"
    recipe = next(iter(ctx.project.recipes))
    lines += [
        "",
        "Where to look next (commands are in .venv/bin):",
        "  make ui                                  the Dagster UI: assets, lineage, plots, runs",
        f'  vsel sql{option} "from selected_subset select task, count(*) group by all"',
        f"  vsel explain{option} position:0 -r {recipe}   why a row is in or out",
        f"  vsel export{option} {recipe} --to selected.json --manifest manifest.json",
        "  vsel verify manifest.json --data selected.json",
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
    """Exact match per task on held-out rows: base model, and each recipe's checkpoint."""
    tables = {
        recipe: ctx.store.read_partition("evaluation", {"recipe": recipe}).to_pylist()
        for recipe, settings in ctx.project.recipes.items()
        if settings.train and ctx.store.pointer("evaluation", {"recipe": recipe})
    }
    if not tables:
        return []
    rows = next(iter(tables.values()))
    base = {row["task"]: row for row in rows if row["model"] == "base"}
    tuned = {name: {r["task"]: r for r in found if r["model"] == "tuned"} for name, found in tables.items()}
    width = max(12, *(len(name) for name in tables))
    head = "held-out exact match".ljust(24) + "answers".rjust(8) + "base".rjust(8)
    lines = [head + "".join(name.rjust(width + 2) for name in tables)]
    for task, row in sorted(base.items()):
        cells = "".join(f"{tuned[name][task]['exact_match']:.3f}".rjust(width + 2) for name in tables)
        lines.append(task.ljust(24) + str(row["n_answers"]).rjust(8) + f"{row['exact_match']:.3f}".rjust(8) + cells)
    lines.append("Tasks whose figure stays at the base's level were not learned in this short training.")
    return lines
