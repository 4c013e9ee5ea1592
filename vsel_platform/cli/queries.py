"""Commands that read the store: sql, lineage, doctor, gc."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from vsel_platform.cli.app import (
    DEFAULT_PROJECT,
    JsonOption,
    ProjectOption,
    app,
    open_context,
    open_project,
    print_json,
    say,
)
from vsel_platform.errors import QueryError


@app.command(epilog='Examples: vsel sql "select task, count(*) from manifest group by task";  vsel sql  (a shell)')
def sql(
    query: Annotated[str | None, typer.Argument(help="One SELECT; without it a shell opens.")] = None,
    project: ProjectOption = DEFAULT_PROJECT,
    as_of: Annotated[str | None, typer.Option(help="Read the store as it was at this time (ISO 8601, UTC).")] = None,
    manifest: Annotated[Path | None, typer.Option(help="Read what this selection manifest was made from.")] = None,
    rows: Annotated[int, typer.Option(help="Largest number of rows.")] = 10_000,
    seconds: Annotated[float, typer.Option(help="Time limit in seconds.")] = 30,
    memory_mib: Annotated[int, typer.Option(help="Memory limit in MiB.")] = 1024,
    json: JsonOption = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table.")] = False,
) -> None:
    """Query every table of the store: read-only, one SELECT at a time."""
    from vsel_platform.cli.sql_shell import Form, print_result, shell
    from vsel_platform.selection.manifest import read_manifest
    from vsel_platform.storage.sql import QueryLimits, run_query

    if json and csv:
        raise QueryError("give --json or --csv, not both")
    form: Form = "json" if json else "csv" if csv else "table"
    store = open_context(project).store
    limits = QueryLimits(memory_mib=memory_mib, rows=rows, seconds=seconds)
    seen = read_manifest(manifest) if manifest else None

    def run(text: str) -> None:
        print_result(run_query(store, text, limits=limits, as_of=as_of, manifest=seen), form)

    if query is not None:
        run(query)
    else:
        shell(run)


@app.command(epilog="Example: vsel lineage selected_subset/recipe=presel_15")
def lineage(
    name: Annotated[str, typer.Argument(help="table/partition=value, optionally @version.")],
    project: ProjectOption = DEFAULT_PROJECT,
    depth: Annotated[int, typer.Option(help="How many steps to go back.")] = 10,
    json: JsonOption = False,
) -> None:
    """Show what a published partition was made from, back to the source file."""
    from vsel_platform.storage.lineage import as_text, trace

    tree = trace(open_context(project).store, name, depth=depth)
    if json:
        print_json(tree)
    else:
        say(as_text(tree))


@app.command(epilog="Example: vsel doctor")
def doctor(project: ProjectOption = DEFAULT_PROJECT, json: JsonOption = False) -> None:
    """Probe the store, the machine, the models' weights and the benchmarks, and say what they may be used for."""
    from vsel_platform.pipeline.context import Context
    from vsel_platform.pipeline.question_costs import benchmark_problem
    from vsel_platform.pipeline.used_models import used_models
    from vsel_platform.storage.doctor import Finding, diagnose

    loaded = open_project(project)
    findings = diagnose(loaded.store_root)
    for model in used_models(loaded, list(loaded.recipes), train=True):
        status: Literal["ok", "warn"] = "ok" if model.available else "warn"
        findings.append(Finding(model.key, status, f"{model.model}: {model.detail}", model.advice))
    for name in loaded.benchmarks:
        problem = benchmark_problem(Context(loaded), name)
        found = Finding(f"benchmarks.{name}", "warn" if problem else "ok", problem or "questions and images are there")
        findings.append(found)
    if json:
        print_json([{"check": f.check, "status": f.status, "detail": f.detail, "advice": f.advice} for f in findings])
    else:
        for finding in findings:
            say(f"{finding.status:4}  {finding.check}: {finding.detail}")
            if finding.advice and finding.status != "ok":
                say(f"      {finding.advice}")
    if any(finding.status == "fail" for finding in findings):
        raise typer.Exit(4)


@app.command(epilog="Example: vsel gc --dry-run --keep-days 30")
def gc(
    project: ProjectOption = DEFAULT_PROJECT,
    keep_days: Annotated[float, typer.Option(help="Keep every state that was current in the last days.")] = 30,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    compact: Annotated[bool, typer.Option("--compact", help="Merge the small files of embeddings first.")] = False,
    json: JsonOption = False,
) -> None:
    """Remove files that no pointer, no kept history and no selection manifest names."""
    from vsel_platform.storage.gc import collect

    if keep_days < 0:
        raise QueryError(f"--keep-days {keep_days}: give a number of days, 0 or more")
    ctx = open_context(project)
    if compact and not dry_run:
        from vsel_platform.pipeline.maintenance import compact_vectors

        for name, done in compact_vectors(ctx).items():
            typer.echo(f"{name}: {done.fragments_before} files before, {done.fragments_after} now", err=True)
    report = collect(ctx.store, keep_days=keep_days, dry_run=dry_run)
    if json:
        print_json(report.to_dict())
    else:
        verb = "would remove" if dry_run else "removed"
        say(f"{verb} {len(report.files):,} files, {report.n_bytes:,} bytes")
        for path in report.files[:20]:
            say(f"  {path}")
