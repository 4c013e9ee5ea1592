"""Commands about evaluations: leaderboard, upload, lmms-export, lmms-import, evidence."""

import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from vsel_platform.cli.app import (
    DEFAULT_PROJECT,
    JsonOption,
    ProjectOption,
    app,
    open_context,
    print_json,
    say,
)
from vsel_platform.errors import EvaluationError

BenchmarkArgument = Annotated[str, typer.Argument(help="Benchmark of the project file.")]
RecipeArgument = Annotated[str, typer.Argument(help="Recipe whose checkpoint answered; `base` is the base model.")]


@app.command(epilog="Examples: vsel leaderboard held_out;  vsel leaderboard held_out --page leaderboard.html")
def leaderboard(
    benchmark: BenchmarkArgument,
    project: ProjectOption = DEFAULT_PROJECT,
    page: Annotated[Path | None, typer.Option(help="Write a page with plots here.")] = None,
    json: JsonOption = False,
) -> None:
    """Trained recipes on a benchmark: which are better than random selections, and which cannot be told from them."""
    from vsel_platform.pipeline.benchmarks import read_benchmark
    from vsel_platform.pipeline.leaderboard import boards_of, compared_recipes, earlier_recipes
    from vsel_platform.reports.leaderboard import leaderboard_markdown, leaderboard_page

    ctx = open_context(project)
    earlier = earlier_recipes(ctx, benchmark)
    recipes = [*compared_recipes(ctx, benchmark), *earlier]
    if not recipes:
        raise EvaluationError(f"no trained recipe has answered {benchmark}; run `vsel run --train`")
    found = read_benchmark(ctx, benchmark)
    boards = boards_of(ctx, found, recipes)
    if earlier:
        typer.echo(f"of an earlier state of their selection: {', '.join(earlier)}; run `vsel run --train`", err=True)
    if json:
        print_json([_marked(board.to_dict(), earlier) for board in boards])
    else:
        say(leaderboard_markdown(boards))
    if page is not None:
        page.write_text(leaderboard_page(boards, title=f"Leaderboard: {benchmark}"), "utf-8")


def _marked(board: dict[str, Any], earlier: Collection[str]) -> dict[str, Any]:
    """A board whose rows name, as `earlier`, their recipes that were evaluated in an earlier state of the selection."""
    rows = [row | {"earlier": [name for name in row["recipes"] if name in earlier]} for row in board["rows"]]
    return board | {"rows": rows}


@app.command(epilog="Example: vsel upload vqav2_test presel_15 --to uploads")
def upload(
    benchmark: BenchmarkArgument,
    recipe: RecipeArgument,
    to: Annotated[Path, typer.Option(help="Directory to write the files to.")],
    project: ProjectOption = DEFAULT_PROJECT,
) -> None:
    """Write the files that a benchmark's server takes."""
    from vsel_platform.pipeline.benchmarks import read_benchmark
    from vsel_platform.pipeline.measured import require_answers, stored_texts

    ctx = open_context(project)
    found = read_benchmark(ctx, benchmark)
    require_answers(ctx, found, recipe, whole=True)
    files = found.format.upload(found.questions, stored_texts(ctx, found, recipe))
    if not files:
        raise EvaluationError(f"benchmark {benchmark}: {found.settings.format} has no server to upload to")
    to.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (to / name).write_bytes(data)
        say(f"{to / name}: {len(data):,} bytes")


@app.command(epilog="Example: vsel lmms-export pope presel_15 --to pope_samples.jsonl")
def lmms_export(
    benchmark: BenchmarkArgument,
    recipe: RecipeArgument,
    to: Annotated[Path, typer.Option(help="File to write.")],
    project: ProjectOption = DEFAULT_PROJECT,
    task: Annotated[str | None, typer.Option(help="Name of lmms-eval's task, if there are several.")] = None,
) -> None:
    """Write answers in the form of lmms-eval's sample logs."""
    from vsel_platform.evaluation.lmms_eval import export_samples, find_task
    from vsel_platform.pipeline.benchmarks import read_benchmark
    from vsel_platform.pipeline.measured import require_answers, stored_texts

    ctx = open_context(project)
    found = read_benchmark(ctx, benchmark)
    require_answers(ctx, found, recipe)
    texts = stored_texts(ctx, found, recipe)
    # Stored judgements may be of another `compat`.
    judgements = found.format.judge(found.questions, texts, found.settings.compat)
    data = export_samples(find_task(found.settings.format, task), found.questions, texts, judgements)
    to.write_bytes(data)
    say(f"{to}: {sum(text is not None for text in texts):,} answers")


@app.command(epilog="Example: vsel lmms-import pope 20260101_samples_pope.jsonl --as qwen_elsewhere")
def lmms_import(
    benchmark: BenchmarkArgument,
    file: Annotated[Path, typer.Argument(help="A samples file of lmms-eval.")],
    name: Annotated[str, typer.Option("--as", help="Name under which the answers are kept, no recipe's.")],
    project: ProjectOption = DEFAULT_PROJECT,
    task: Annotated[str | None, typer.Option(help="Name of lmms-eval's task, if there are several.")] = None,
) -> None:
    """Judge answers that were given elsewhere, with this project's metrics and intervals."""
    from vsel_platform.evaluation.lmms_eval import find_task, import_answers
    from vsel_platform.pipeline.benchmarks import read_benchmark
    from vsel_platform.pipeline.imported_answers import imported_metrics, publish_imported

    ctx = open_context(project)
    found = read_benchmark(ctx, benchmark)
    texts = import_answers(str(file), found.questions, find_task(found.settings.format, task))
    told = publish_imported(ctx, found, name, texts)
    say("\n".join(_imported(name, benchmark, told, imported_metrics(ctx, found, name))))


def _imported(name: str, benchmark: str, told: Mapping[str, Any], metrics: Sequence[str]) -> list[str]:
    """What was imported, its metrics, and what keeps them from telling all."""
    n, missing = told["n_questions"], told["n_not_answered"]
    unread = round(told["parse_failure_rate"] * n) - missing
    lines = [f"{name}: answers to {n - missing:,} of {n:,} questions of {benchmark}", *metrics]
    if missing:
        lines.append(f"warning: {missing:,} of {n:,} questions have no answer in the file; they count as wrong")
    if unread:
        lines.append(f"nothing could be read out of {unread:,} answers")
    if unknown := told.get("n_without_right_answer"):
        lines.append(f"{unknown:,} of {n:,} questions have no right answer; they count in no metric")
    return lines


@app.command(epilog="Examples: vsel evidence;  vsel evidence --seeds 10 --budgets 5,10,20 --directory evidence")
def evidence(
    directory: Annotated[Path, typer.Option(help="Where the project and its store go.")] = Path("evidence"),
    methods: Annotated[str | None, typer.Option(help="Methods, separated by commas; none: all of the table.")] = None,
    budgets: Annotated[str, typer.Option(help="Budgets in percent of the rows, separated by commas.")] = "5,15",
    seeds: Annotated[int, typer.Option(help="Seeds of every method.")] = 3,
    random_seeds: Annotated[int, typer.Option(help="Seeds of random selections, at least 5 to judge by.")] = 5,
    vlm: Annotated[str | None, typer.Option(help="Hub id or directory of a larger model, for a GPU.")] = None,
) -> None:
    """Methods x budgets x seeds on the embedded rows: selects, trains, evaluates and compares. Resumable."""
    from vsel_platform.cli.deployment import run_in_dagster
    from vsel_platform.demo.evidence import METHODS, Plan, chunks, write_evidence_project
    from vsel_platform.demo.project import HELD_OUT

    plan = Plan(
        methods=tuple(methods.split(",")) if methods else METHODS,
        budgets=tuple(float(budget) for budget in budgets.split(",")),
        seeds=seeds,
        random_seeds=random_seeds,
    )
    start = time.monotonic()
    project = write_evidence_project(directory, plan, vlm)
    say(f"project file: {project}; {plan.n_runs} trainings")
    for names in chunks(plan):
        code = run_in_dagster(project, names, train=True)
        if code:
            raise EvaluationError(f"evidence stopped with exit code {code}; the same command goes on from here")
    leaderboard(HELD_OUT, project, directory / "leaderboard.html")
    say(f"page: {directory / 'leaderboard.html'}; {time.monotonic() - start:.0f} s")
