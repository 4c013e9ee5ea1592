"""Scores of the methods, and the subsets that recipes select with them."""

import dagster as dg

from assets import checks, plots
from assets.reporting import materialized, spec_metadata
from assets.signals import image_embeddings, losses, reference_subset
from automation.partitions import dataset_to_recipes, datasets, recipes
from resources.project import ProjectResource
from vsel_platform.pipeline import scores, selection

GROUP = "selection"

# Reselection in the UI is edge-triggered and can miss a change; the reconcile sensor cannot.
REFRESH = (
    dg.AutomationCondition.eager().replace(
        "any_deps_updated",
        dg.AutomationCondition.any_deps_match(
            dg.AutomationCondition.data_version_changed() | dg.AutomationCondition.will_be_requested()
        ),
    )
    & dg.AutomationCondition.all_deps_blocking_checks_passed()
)


@dg.asset(
    deps=[
        dg.AssetDep("dataset_manifest"),
        dg.AssetDep(reference_subset),
        dg.AssetDep(image_embeddings, partition_mapping=dg.AllPartitionMapping()),
        dg.AssetDep(losses, partition_mapping=dg.AllPartitionMapping()),
    ],
    partitions_def=datasets,
    group_name=GROUP,
    kinds={"parquet", "scikitlearn"},
    code_version=scores.SCORE_CODE,
    automation_condition=REFRESH,
    description="PreSel's view of the signals: task importance from the loss ratio of the reference rows, and for "
    "every row its cluster inside the task and how typical its image is of that cluster. No model runs here.",
    metadata=spec_metadata("presel_scores"),
    check_specs=checks.specs("presel_scores", "presel_scores"),
)
def presel_scores(context: dg.AssetExecutionContext, project: ProjectResource) -> dg.MaterializeResult:
    """Score a dataset with PreSel."""
    ctx = project.context(context.run_id)
    result = scores.run(ctx, context.partition_key)
    found = checks.results(ctx, "presel_scores", "presel_scores", result.references)
    return materialized(ctx, result, plots.presel(ctx, context.partition_key), check_results=found)


@dg.asset(
    deps=[
        dg.AssetDep(presel_scores, partition_mapping=dataset_to_recipes()),
        dg.AssetDep("dataset_manifest", partition_mapping=dataset_to_recipes()),
    ],
    partitions_def=recipes,
    group_name=GROUP,
    kinds={"parquet", "json"},
    code_version=selection.SELECTION_CODE,
    automation_condition=REFRESH,
    description="The rows that a recipe selects, in rank order and with reasons; its manifest, from which it can be "
    "verified and replayed; and the training file in the format of the source.",
    metadata=spec_metadata("selected_subset"),
    check_specs=checks.specs("selected_subset", "selected_subset"),
)
def selected_subset(context: dg.AssetExecutionContext, project: ProjectResource) -> dg.MaterializeResult:
    """Select the rows of a recipe."""
    ctx = project.context(context.run_id)
    result = selection.run(ctx, context.partition_key)
    found = checks.results(ctx, "selected_subset", "selected_subset", result.references)
    return materialized(ctx, result, plots.selection(ctx, context.partition_key), check_results=found)
