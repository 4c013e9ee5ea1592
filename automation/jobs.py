"""One job per stage, because a job cannot span several partition sets."""

from typing import Any

import dagster as dg

from automation.partitions import loaded_project
from resources.project import ProjectResource
from vsel_platform.methods.registry import used_scores
from vsel_platform.pipeline.maintenance import compact_vectors
from vsel_platform.pipeline.method_scores import stage_name

METHOD_SCORES = [stage_name(score) for score in used_scores(loaded_project())]

ingest = dg.define_asset_job("ingest", dg.AssetSelection.assets("raw_annotations", "dataset_manifest", "quarantine"))
signals = dg.define_asset_job(
    "signals", dg.AssetSelection.assets("image_embeddings", "vision_representations", "base_losses", "losses")
)
reference = dg.define_asset_job("reference", dg.AssetSelection.assets("reference_subset", "reference_model"))
scores = dg.define_asset_job(
    "scores", dg.AssetSelection.assets("representation_moments", "presel_scores", *METHOD_SCORES)
)
select = dg.define_asset_job("select", dg.AssetSelection.assets("selected_subset"))
train = dg.define_asset_job("train", dg.AssetSelection.assets("finetuned_checkpoint", "evaluation"))


class DriveConfig(dg.Config):  # type: ignore[misc]
    """Which recipes to bring up to date (empty: all), and whether to fine-tune and evaluate them too."""

    recipes: list[str] = []  # noqa: RUF012  (Dagster copies the default of a config field)
    train: bool = True


@dg.op(
    pool="gpu",  # embeddings are written in this pool: compaction does not run beside them
    description="Merges the small files that many shards leave behind in the LanceDB tables of embeddings.",
)
def compact_embeddings(context: dg.OpExecutionContext, project: ProjectResource) -> None:
    """Compact every table of vectors."""
    for name, done in compact_vectors(project.context(context.run_id)).items():
        context.log.info(f"{name}: {done.fragments_before} files before, {done.fragments_after} now")


@dg.job(description="Upkeep of the store; nothing that a selection reads changes.")
def maintenance() -> None:
    """Compact the tables of embeddings."""
    compact_embeddings()


@dg.op(description="Brings recipes up to date stage by stage; every stage is a run of its own in this instance.")
def drive_recipes(context: dg.OpExecutionContext, config: DriveConfig) -> None:
    """Materialize whatever is stale for the recipes, in order."""
    from automation.run import drive

    drive(context.instance, list(config.recipes), train=config.train, log=context.log.info)


@dg.job(description="The whole demo: ingest, signals, scores, selection, fine-tuning, evaluation of every recipe.")
def demo() -> None:
    """Bring every recipe of the project file up to date."""
    drive_recipes()


ALL: list[Any] = [ingest, signals, reference, scores, select, train, demo, maintenance]
