"""Plots and tables of materializations: each reads what was published and returns metadata; {} if there is nothing."""

import dagster as dg

from assets import reporting
from vsel_platform.config_evaluation import BASE
from vsel_platform.pipeline.context import Context
from vsel_platform.storage.pointers import parse_reference, read_version

Metadata = dict[str, dg.MetadataValue]

QUARANTINE_ROWS = 20
REPEATED_ROWS = (
    "The content of an earlier row under another id: it keeps its position and is scored and selected once. "
    "A row that repeats with its id is in quarantine, as duplicate_row."
)


def dataset(ctx: Context, dataset: str) -> Metadata:
    """Distinct and repeated rows, rows by task."""
    from vsel_platform.reports import data, plots

    summary = data.dataset_summary(ctx, dataset)
    if summary is None:
        return {}
    bars = plots.value_bars(
        dict(summary.tasks),
        title=f"Rows of dataset {dataset} by task",
        subtitle=f"{summary.n_distinct:,} distinct rows in {len(summary.tasks):,} tasks",
        xlabel="rows",
        rest="more tasks",
    )
    counts = {"distinct rows": summary.n_distinct, "repeated rows": summary.n_duplicates, "tasks": len(summary.tasks)}
    numbers = {name: dg.MetadataValue.int(count) for name, count in counts.items()}
    note = dg.MetadataValue.text(REPEATED_ROWS)
    return reporting.plots({"rows by task": bars}) | numbers | {"what repeated rows are": note}


def quarantine(ctx: Context, dataset: str) -> Metadata:
    """Reasons of refused rows, and the first of them."""
    from vsel_platform.reports import data, markdown, plots
    from vsel_platform.reports.style import WARNING
    from vsel_platform.samples.sample import REASONS

    summary = data.quarantine_summary(ctx, dataset, QUARANTINE_ROWS)
    if summary is None or not summary.n_rows:
        return {}
    bars = plots.value_bars(
        dict(summary.reasons),
        title=f"Why rows of dataset {dataset} were refused",
        subtitle=f"{summary.n_rows:,} of {summary.n_rows + summary.n_accepted:,} rows are in quarantine",
        xlabel="rows",
        colour=WARNING,
        rest="more reasons",
    )
    rows = [(str(position), reason, detail) for position, reason, detail in summary.first]
    meanings = {str(reason): text for reason, text in REASONS.items()}
    frequent = sorted(summary.reasons.items(), key=lambda item: (-item[1], item[0]))
    reasons = [(reason, count, markdown.Long(meanings.get(reason, ""))) for reason, count in frequent]
    return reporting.plots({"reasons": bars}) | {
        "what the reasons mean": dg.MetadataValue.md(markdown.table(["reason", "rows", "meaning"], reasons)),
        "first refused rows": dg.MetadataValue.md(markdown.table(["position", "reason", "detail"], rows)),
    }


def method_scores(ctx: Context, references: list[str]) -> Metadata:
    """Distribution of the scores, and the images at its two ends, for every variant that was published."""
    from vsel_platform.reports import data, plots
    from vsel_platform.reports.pictures import score_sheet

    metadata: Metadata = {}
    for reference in references:
        scores = read_version(ctx.store.files, *parse_reference(reference))
        score, variant = scores.partition["score"], scores.partition["variant"]
        suffix = "" if variant == "default" else f" ({variant})"
        values, _ = data.column_values(ctx, scores, "value")
        title = f"Scores of the rows of {scores.partition['dataset']}: {score}{suffix}"
        histogram = plots.histogram(values, title=title, xlabel=f"{score} score, higher is more valuable")
        sheet = score_sheet(ctx, scores, score)
        metadata |= reporting.plots({f"{score}{suffix}": histogram, f"highest and lowest{suffix}": sheet})
    return metadata


def reference(ctx: Context, dataset: str) -> Metadata:
    """Reference rows by task, of how many."""
    from vsel_platform.reports import data, markdown, plots

    tasks = data.reference_tasks(ctx, dataset)
    if not any(t.n_reference for t in tasks):
        return {}
    bars = plots.value_bars(
        {t.task: t.n_reference for t in tasks},
        notes={t.task: f"of {t.n_rows:,}" for t in tasks},
        title=f"Reference rows of dataset {dataset} by task",
        subtitle=f"{sum(t.n_reference for t in tasks):,} rows; text-only rows are never drawn",
        xlabel="rows",
        rest="more tasks",
    )
    rows = [(t.task, t.n_rows, t.n_reference, f"{t.n_reference / t.n_rows:.1%}", t.n_images) for t in tasks]
    table = markdown.table(["task", "rows", "reference rows", "share", "their images"], rows)
    return reporting.plots({"reference rows by task": bars}) | {"tasks": dg.MetadataValue.md(table)}


def comparison(ctx: Context, dataset: str) -> Metadata:
    """Overlap and coverage of the selections of a dataset, and what they keep and drop."""
    from vsel_platform.pipeline.compare import PAGE

    return _page_plots(ctx, PAGE, {"dataset": dataset}) | reporting.files(ctx, PAGE, {"dataset": dataset})


def training_curve(ctx: Context, table: str, partition_name: str, key: str) -> Metadata:
    """Training loss per step, from the record beside the adapter; adapters of earlier versions have none."""
    from vsel_platform.pipeline.artifacts import training_record
    from vsel_platform.reports import plots, training_plots

    pointer = ctx.store.pointer(table, {partition_name: key})
    record = training_record(ctx, pointer) if pointer is not None else None
    if pointer is None or record is None:
        return {}
    what = f"{table.replace('_', ' ')}, {partition_name} {key}"
    return reporting.plots(
        {
            "training loss": plots.loss_curve(record["loss"], title=f"Training of {what}"),
            "answers and questions": training_plots.split_losses(record, title=f"Losses of {what}"),
            "throughput": training_plots.throughput_curve(
                pointer.metadata.get("throughput") or [], title=f"Throughput of {what}"
            ),
        }
    )


def presel(ctx: Context, dataset: str) -> Metadata:
    """Task difficulty, typicality, and the most and least typical images, for every mode that recipes use."""
    metadata: Metadata = {}
    recipes = ctx.project.recipes.values()
    modes = {r.mode for r in recipes if r.dataset == dataset and r.method == "presel"} or {"default"}
    for mode in sorted(modes):
        metadata |= _presel_mode(ctx, dataset, mode)
    return metadata


def _presel_mode(ctx: Context, dataset: str, mode: str) -> Metadata:
    from vsel_platform.reports import data, plots
    from vsel_platform.reports.pictures import typicality_sheet
    from vsel_platform.reports.selection_report import TYPICALITY_LABEL
    from vsel_platform.reports.style import counted

    scores = data.scores_pointer(ctx, dataset, mode)
    if scores is None:
        return {}
    suffix = "" if mode == "default" else f" ({mode})"
    tasks = data.task_difficulty(ctx, dataset, mode)
    values, _ = data.column_values(ctx, scores, "typicality")
    return reporting.plots(
        {
            f"task difficulty{suffix}": plots.value_bars(
                {t.task: t.difficulty for t in tasks},
                notes={t.task: f"({counted(t.n_relevance, 'reference row')})" for t in tasks},
                title=f"Task difficulty in {dataset}{suffix}: how little the question helps",
                subtitle="mean instruction relevance of the reference rows; a lower difficulty earns more budget",
                xlabel="difficulty [loss with the question / loss without it]",
                hatched={t.task for t in tasks if not t.is_measured},
                hatched_name="too few reference rows: mean of the other tasks",
                rest="more tasks",
            ),
            f"typicality{suffix}": plots.histogram(
                values, title=f"Typicality of the rows of {dataset}{suffix}", xlabel=TYPICALITY_LABEL
            ),
            f"most and least typical{suffix}": typicality_sheet(ctx, scores),
        }
    )


def selection(ctx: Context, recipe: str) -> Metadata:
    """Budgets of a selection, and the plots of its page; its files; whether its checkpoint is older."""
    from vsel_platform.pipeline.trained import trained_on
    from vsel_platform.reports import markdown
    from vsel_platform.reports.selection_report import share_name, share_of, task_budgets

    tasks = ctx.store.pointer("selected_tasks", {"recipe": recipe})
    if tasks is None:
        return {}
    method = ctx.project.recipe(recipe).method
    rows = [
        (t.task, t.n_total, t.n_reference, t.difficulty, share_of(method, t), t.budget, t.n_selected, t.n_taken)
        for t in task_budgets(ctx.store.read(tasks))
    ]
    # The UI breaks no header, and what a wide one pushes out is not seen.
    headers = ["task", "rows", "reference", "difficulty", "share", "budget", "selected", "in all"]
    metadata = _page_plots(ctx, "selection", {"recipe": recipe})
    if rows:
        legend = f"share: {share_name(method).removeprefix('Share ')}; in all: selected and reference rows"
        metadata["tasks"] = dg.MetadataValue.md(f"{markdown.table(headers, rows)}\n\n{legend}")
    trained = trained_on(ctx, recipe, "finetuned_checkpoint")
    if trained is not None and trained.is_earlier:
        metadata["checkpoint"] = dg.MetadataValue.text(f"The stored adapter was {trained.sentence}.")
    return metadata | reporting.files(ctx, "selection", {"recipe": recipe})


def _page_plots(ctx: Context, artifact: str, partition: dict[str, str]) -> Metadata:
    """The plots of an artifact's page, which are not drawn a second time."""
    from vsel_platform.reports.html import figures

    pages = [path for path in reporting.paths(ctx, artifact, partition) if path.endswith(".html")]
    shown = [plot for page in pages for plot in figures(ctx.store.files.read(page).decode())]
    return reporting.plots({plot.name: plot.png for plot in shown})


def evaluation(ctx: Context, recipe: str, benchmark: str) -> Metadata:
    """Metrics with intervals; and before and after fine-tuning: which tasks were learned, which got worse."""
    from vsel_platform.evaluation.gains import regressions
    from vsel_platform.pipeline.benchmarks import read_benchmark
    from vsel_platform.pipeline.measured import answers_pointer, compared_with_base
    from vsel_platform.pipeline.trained import trained_on
    from vsel_platform.reports import markdown
    from vsel_platform.reports.evaluation_plot import evaluation_bars, nothing_right

    if any(answers_pointer(ctx, name, benchmark) is None for name in (BASE, recipe)):
        return metrics(ctx, recipe, benchmark)
    found = read_benchmark(ctx, benchmark)
    results = compared_with_base(ctx, found, recipe)
    rows = [
        (
            r.task,
            r.n_answers,
            _value(r.base, r.base_interval),
            _value(r.tuned, r.tuned_interval),
            "-" if r.base_loss is None else r.base_loss,
            "-" if r.tuned_loss is None else r.tuned_loss,
            r.verdict,
        )
        for r in results
    ]
    measure = found.format.headline.replace("_", " ")
    names = ["task", "answers", f"{measure}, base", f"{measure}, tuned", "loss, base", "loss, tuned", "verdict"]
    title = f"What fine-tuning on recipe {recipe} taught, on {benchmark}"
    trained = trained_on(ctx, recipe, benchmark=benchmark)
    notes = (
        ([f"The adapter was {trained.sentence}."] if trained is not None else [])
        + regressions(results)
        + nothing_right(results, measure)
    )
    return (
        reporting.plots({f"{measure} and loss": evaluation_bars(results, title=title, measure=measure)})
        | {"results by task": dg.MetadataValue.md(markdown.table(names, rows))}
        | metrics(ctx, recipe, benchmark)
        | {"notes": dg.MetadataValue.text(" ".join(notes))}
    )


def metrics(ctx: Context, recipe: str, benchmark: str) -> Metadata:
    """Every metric of an evaluation with its interval."""
    from vsel_platform.reports import markdown
    from vsel_platform.reports.leaderboard_plot import decimals

    pointer = ctx.store.pointer("evaluation", {"recipe": recipe, "benchmark": benchmark})
    stored = ctx.store.read(pointer).sort_by("position").to_pylist() if pointer is not None else []
    rows = [
        (
            row["measure"],
            row["category"] or "all",
            _value(row["value"], (row["low"], row["high"]), decimals(row["unit"])),
            row["unit"],
            row["n_questions"],
            row["n_unparsed"],
        )
        for row in stored
    ]
    names = ["metric", "of", "value (95 % interval)", "unit", "questions", "answers not understood"]
    return {"metrics": dg.MetadataValue.md(markdown.table(names, rows))} if rows else {}


def page(ctx: Context, artifact: str, partition: dict[str, str]) -> Metadata:
    """Plots and tables of a page, and where it lies."""
    shown = _page_plots(ctx, artifact, partition) | reporting.tables(ctx, artifact, partition)
    return shown | reporting.files(ctx, artifact, partition)


def _value(value: float | None, interval: tuple[float | None, float | None], digits: int = 1) -> str:
    """A value with its interval; there is none of a single cluster of questions, or where it is not defined."""
    low, high = interval
    if value is None:
        return "-"
    if low is None or high is None or not low < high:
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
