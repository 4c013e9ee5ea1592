"""Commands about project files and source data: init, check, ingest, propose-questions, config show."""

from pathlib import Path
from typing import Annotated

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
from vsel_platform.cli.show import HIDDEN, project_yaml, yaml_text
from vsel_platform.errors import ConfigError

config_app = typer.Typer(no_args_is_help=True, help="Look at the project file.")
app.add_typer(config_app, name="config")

TEMPLATE = """\
# Project file of vsel; `vsel config show` prints every value with its default.
{note}
name: my-project
store: .vsel/store            # a directory, or s3://bucket/prefix
datasets:
  train:
    format: llava             # llava, sharegpt, vision_flan, huggingface
    source: {source}
    image_root: {image_root}
    task: {{column: task}}      # or files: {{...}}, or rule: a regular expression on the image path
{models}
recipes:
  presel_15: {{dataset: train, method: presel, budget: {{percent: 15}}}}
  random_15: {{dataset: train, method: random, budget: {{percent: 15}}}}
"""
HUB_NOTE = """\
# The models below are downloaded from a hub (or fetched before: `hf download MODEL`), and LLaVA-7B wants a GPU;
# `vsel doctor` says whether the weights are there. Without either: `vsel init --demo-models`."""
HUB_MODELS = """\
image_encoder: {name: huggingface, model: facebook/dinov2-base}
vlm: {model: llava-hf/llava-1.5-7b-hf}"""
DEMO_NOTE = """\
# With the demo's small models, to try your rows without downloads or a GPU. What they select says little about your
# data; for a real selection take the models of `vsel init`."""
DEMO_LORA = "{rank: 16, alpha: 32, dropout: 0.0, learning_rate: 0.005, projector_learning_rate: 0.002, batch_rows: 16}"
DEMO_MODELS = f"""\
image_encoder: {{name: efficientnet_lite0}}
vlm: {{model: embedded:demo, template: plain, dtype: float32, max_tokens: 256, batch_tokens: 4096}}
reference: {{lora: {DEMO_LORA}}}
training: {{lora: {DEMO_LORA}}}"""


@app.command(epilog="Example: vsel init --source data/llava.json --image-root data/images")
def init(
    path: Annotated[Path, typer.Argument(help="Where to write the project file.")] = DEFAULT_PROJECT,
    source: Annotated[str, typer.Option(help="Annotation file.")] = "data/annotations.json",
    image_root: Annotated[str, typer.Option(help="Directory that image paths start at.")] = "data/images",
    demo_models: Annotated[
        bool, typer.Option("--demo-models", help="Name the demo's small models: no downloads, no GPU.")
    ] = False,
) -> None:
    """Write a project file to start from; an existing one is never replaced."""
    if path.exists():
        raise ConfigError(f"{path} exists; name another path, or edit it")
    path.parent.mkdir(parents=True, exist_ok=True)
    note, models = (DEMO_NOTE, DEMO_MODELS) if demo_models else (HUB_NOTE, HUB_MODELS)
    values = {"source": yaml_text(source), "image_root": yaml_text(image_root), "note": note, "models": models}
    path.write_text(TEMPLATE.format(**values), "utf-8")
    say(f"wrote {path}; next: vsel check")


@config_app.command("show", epilog="Example: vsel config show --json | jq .recipes")
def config_show(project: ProjectOption = DEFAULT_PROJECT, json: JsonOption = False) -> None:
    """Print every setting as a project file; what differs from the default has the default beside it."""
    loaded = open_project(project)
    if json:
        print_json(loaded.model_dump(mode="json", exclude=HIDDEN))
    else:
        say(project_yaml(loaded))


@app.command(epilog="Example: vsel check train")
def check(
    dataset: Annotated[str | None, typer.Argument(help="Dataset of the project file; none: all.")] = None,
    project: ProjectOption = DEFAULT_PROJECT,
    json: JsonOption = False,
) -> None:
    """Read and validate source rows without storing anything."""
    from vsel_platform.pipeline import ingest

    ctx = open_context(project)
    names = [dataset] if dataset else list(ctx.project.datasets)
    reports = [ingest.check_source(ctx, name) for name in names]
    if json:
        print_json([report.to_dict() for report in reports])
    else:
        for report in reports:
            say(report.to_text())
    if any(report.above_limit for report in reports):
        raise typer.Exit(3)


@app.command("ingest", epilog="Example: vsel ingest train")
def ingest_command(
    dataset: Annotated[str | None, typer.Argument(help="Dataset of the project file; none: all.")] = None,
    project: ProjectOption = DEFAULT_PROJECT,
    json: JsonOption = False,
) -> None:
    """Read, validate and identify the rows of a source; store new content in shards."""
    from vsel_platform.pipeline import ingest, quality

    ctx = open_context(project)
    results = []
    for name in [dataset] if dataset else list(ctx.project.datasets):
        result = ingest.run(ctx, name)
        pointer = ctx.store.pointer("manifest", {"dataset": name})
        bad = [o for o in quality.check_published(ctx, pointer) if not o.passed] if pointer else []
        results.append({"dataset": name, **result.manifest.to_dict(), "failed_checks": [o.detail for o in bad]})
        if not json:
            say(
                f"{name}: {result.manifest.rows:,} rows, {result.quarantine.rows:,} quarantined, "
                f"{len(result.new_shards)} new shard(s), {result.manifest.seconds:.1f} s"
            )
            if "warning" in result.manifest.metadata:
                say(f"{name}: warning: {result.manifest.metadata['warning']}")
            for outcome in bad:
                say(f"{name}: check failed: {outcome.detail}")
    if json:
        print_json(results)
    if any(result["failed_checks"] for result in results):
        raise typer.Exit(3)


@app.command(
    "propose-questions", epilog="Example: vsel propose-questions train --questions 3 --rows 500 --to asked.json"
)
def propose_questions_command(
    dataset: Annotated[str, typer.Argument(help="Dataset of the project file; it has to be ingested.")],
    to: Annotated[Path, typer.Option(help="File to write, LLaVA JSON; an existing one is replaced.")],
    questions: Annotated[int, typer.Option(min=1, help="Questions to draw about the images of a row.")] = 3,
    rows: Annotated[int, typer.Option(min=1, help="Rows to ask about: a stable choice of those with images.")] = 100,
    task: Annotated[
        str | None, typer.Option(help="Task of the new rows; none: that of the source row and _synthetic.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Ask the checkpoint of this recipe; none: the project's own model.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the choice and of the draws.")] = 12345,
    project: ProjectOption = DEFAULT_PROJECT,
    json: JsonOption = False,
) -> None:
    """Let a model propose questions about a dataset's images and answer them, as rows marked as synthetic.

    Every row passes the validation of an ingest. Its marker is {"synthetic": {"by": fingerprint, "method":
    "self_questioning", "of": sample_id}}; a dataset with the file as its source keeps it, and SQL finds it:
    select * from samples where json_extract(row_json, '$.synthetic') is not null
    """
    from vsel_platform.cli.progress import console_progress
    from vsel_platform.config_evaluation import AskingSettings
    from vsel_platform.pipeline.proposals import propose

    ctx = open_context(project, console_progress())
    asking = AskingSettings(questions=questions, seed=seed)
    report = propose(ctx, dataset, asking, rows=rows, to=to, task=task, recipe=recipe)
    if json:
        print_json(report.to_dict())
        return
    say(f"{to}: {report.written:,} rows from {report.asked:,} rows of {dataset}")
    for what, counts in (("dropped", report.dropped), ("refused", report.refused)):
        for reason, count in counts.items():
            say(f"  {what}: {count:,} {reason}")
    if report.failed:
        say(f"  {report.failed:,} rows could not be asked about")
    say(f"to take them in, add to `datasets` of the project file: {dataset}_asked: {yaml_text(report.settings)}")
