"""One job per stage, because a job cannot span several partition sets; and jobs that drive all stages in order."""

from typing import Any

import dagster as dg

from automation.partitions import loaded_project
from resources.failures import fails_in_words
from resources.project import ProjectResource
from vsel_platform.methods.registry import used_scores
from vsel_platform.pipeline.maintenance import compact_vectors
from vsel_platform.pipeline.method_scores import stage_name
from vsel_platform.worker import SIGNALS

METHOD_SCORES = [stage_name(score) for score in used_scores(loaded_project())]
_STAGES = {
    "ingest": (
        ["raw_annotations", "dataset_manifest", "quarantine"],
        "Reads the source of a dataset: content, positions, and what was refused.",
    ),
    "signals": (
        list(SIGNALS),
        "Runs the models on the content of a shard; what is stored already is not computed again.",
    ),
    "reference": (
        ["reference_subset", "reference_model"],
        "Draws the reference subset of a dataset and trains the reference model on it.",
    ),
    "scores": (
        ["representation_moments", "clusters", "presel_scores", *METHOD_SCORES],
        "Turns stored signals of a dataset into scores; no model runs.",
    ),
    "select": (["selected_subset"], "Selects the rows of a recipe from its scores; no model runs."),
    "compare": (["method_comparison"], "Compares the selections of a dataset; no model runs."),
    "train": (
        ["leakage", "finetuned_checkpoint"],
        "Fine-tunes on the selection of a recipe, if no benchmark stands in it; only by hand, or by `demo`.",
    ),
    "evaluate_base": (["base_evaluation"], "Evaluates the base model on a benchmark."),
    "evaluate": (["evaluation"], "Evaluates the checkpoint of a recipe on a benchmark."),
    "rank": (["leaderboard"], "Compares the evaluated recipes on a benchmark; no model runs."),
    "promote": (["promotion"], "Rules whether a recipe takes the place of its champion; no model runs."),
}
STAGE_JOBS = {
    name: dg.define_asset_job(name, dg.AssetSelection.assets(*assets), description=text)
    for name, (assets, text) in _STAGES.items()
}


BY_HAND = ("train", "evaluate_base", "evaluate", "rank", "promote")
"""Jobs that no sensor and no schedule asks for."""


def stage_job(asset: str) -> str:
    """Name of the job that materializes an asset."""
    return next(name for name, (assets, _) in _STAGES.items() if asset in assets)


class DriveConfig(dg.Config):  # type: ignore[misc]
    """Which recipes to bring up to date (empty: all), and whether to fine-tune and evaluate them too."""

    recipes: list[str] = []  # noqa: RUF012  (Dagster copies the default of a config field)
    train: bool = False


@dg.op(
    pool="gpu",  # embeddings are written in this pool: compaction does not run beside them
    description="Merges the small files that many shards leave behind in the LanceDB tables of embeddings.",
)
@fails_in_words
def compact_embeddings(context: dg.OpExecutionContext, project: ProjectResource) -> None:
    """Compact every table of vectors."""
    for name, done in compact_vectors(project.context(context.run_id)).items():
        context.log.info(f"{name}: {done.fragments_before} files before, {done.fragments_after} now")


@dg.job(description="Upkeep of the store; nothing that a selection reads changes.")
def maintenance() -> None:
    """Compact the tables of embeddings."""
    compact_embeddings()


@dg.op(description="Brings recipes up to date stage by stage; every stage is a run of its own in this instance.")
@fails_in_words
def drive_recipes(context: dg.OpExecutionContext, config: DriveConfig) -> None:
    """Materialize whatever is stale for the recipes, in order."""
    from automation.run import drive

    drive(context.instance, list(config.recipes), train=config.train, log=context.log.info)


@dg.job(description="Brings the selection of every recipe up to date: ingest, signals, scores, selection. No training.")
def reselect() -> None:
    """Bring the selections of the project file up to date."""
    drive_recipes()


@dg.job(
    description="The whole walk of every recipe: ingest, signals, scores, selection, fine-tuning, evaluation.",
    config=dg.RunConfig(ops={"drive_recipes": DriveConfig(train=True)}),
)
def demo() -> None:
    """Bring everything up to date, with fine-tuning and evaluation."""
    drive_recipes()


ALL: list[Any] = [*STAGE_JOBS.values(), reselect, demo, maintenance]
