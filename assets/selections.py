"""Scores of the methods, and the subsets that recipes select with them."""

from collections.abc import Sequence

import dagster as dg

from assets import checks, plots, signal_plots
from assets.reporting import materialized, spec_metadata
from assets.signals import (
    attention_maps,
    base_losses,
    hidden_states,
    image_embeddings,
    losses,
    reference_subset,
    representation_moments,
    text_embeddings,
    vision_representations,
)
from automation.partitions import dataset_to_recipes, datasets, loaded_project, recipes, recipes_to_dataset
from resources.failures import fails_in_words
from resources.project import ProjectResource
from vsel_platform.methods.api import Need
from vsel_platform.methods.registry import Composition, scores_of, used_scores
from vsel_platform.pipeline import clustering, compare, method_scores, scores, selection

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
    description="PreSel's view of the signals: task difficulty from the loss ratio of the reference rows, and for "
    "every row its cluster inside the task and how typical its image is of that cluster. No model runs here.",
    metadata=spec_metadata("presel_scores"),
    check_specs=checks.specs("presel_scores", "presel_scores"),
)
@fails_in_words
def presel_scores(context: dg.AssetExecutionContext, project: ProjectResource) -> dg.MaterializeResult:
    """Score a dataset with PreSel."""
    ctx = project.context(context.run_id)
    result = scores.run(ctx, context.partition_key)
    found = checks.results(ctx, "presel_scores", "presel_scores", result.references)
    return materialized(ctx, result, plots.presel(ctx, context.partition_key), check_results=found)


NEEDED: dict[Need, dg.AssetDep] = {
    "base_losses": dg.AssetDep(base_losses, partition_mapping=dg.AllPartitionMapping()),
    "image_embeddings": dg.AssetDep(image_embeddings, partition_mapping=dg.AllPartitionMapping()),
    "text_embeddings": dg.AssetDep(text_embeddings, partition_mapping=dg.AllPartitionMapping()),
    "attention_maps": dg.AssetDep(attention_maps, partition_mapping=dg.AllPartitionMapping()),
    "vision_representations": dg.AssetDep(vision_representations, partition_mapping=dg.AllPartitionMapping()),
    "hidden_states": dg.AssetDep(hidden_states, partition_mapping=dg.AllPartitionMapping()),
    "representation_moments": dg.AssetDep(representation_moments),
}


@dg.asset(
    deps=[
        dg.AssetDep("dataset_manifest"),
        NEEDED["image_embeddings"],
        NEEDED["vision_representations"],
        NEEDED["hidden_states"],
    ],
    partitions_def=datasets,
    group_name=GROUP,
    kinds={"parquet", "faiss"},
    code_version=clustering.CLUSTER_CODE,
    description="Clusters of a dataset's rows, one clustering for all methods that ask for the same space, number and "
    "seed. No model runs here.",
    metadata=spec_metadata(clustering.TABLE),
    check_specs=checks.specs("clusters", clustering.TABLE),
)
@fails_in_words
def clusters(context: dg.AssetExecutionContext, project: ProjectResource) -> dg.MaterializeResult:
    """Make the clusterings that a dataset's recipes need."""
    ctx = project.context(context.run_id)
    result = clustering.run(ctx, context.partition_key)
    found = checks.results(ctx, "clusters", clustering.TABLE, result.references)
    return materialized(ctx, result, signal_plots.clusters(ctx, result.references), check_results=found)


def score_asset(variants: Sequence[Composition]) -> dg.AssetsDefinition:
    """The asset of a score, under all options that recipes use: a view of the signals that it needs."""
    score = variants[0].score
    needs = sorted({need for variant in variants for need in variant.score_needs})
    clustered = any(variant.score_clusterings for variant in variants)
    name = method_scores.stage_name(score.name)

    @dg.asset(
        name=name,
        deps=[dg.AssetDep("dataset_manifest"), *(NEEDED[need] for need in needs), *([clusters] if clustered else [])],
        partitions_def=datasets,
        group_name=GROUP,
        kinds={"parquet", "numpy"},
        code_version=f"{method_scores.METHOD_SCORE_CODE}-{score.version}",
        automation_condition=REFRESH,
        description=f"{score.description} A view of stored signals: no model runs here.",
        metadata=spec_metadata(method_scores.TABLE),
        check_specs=checks.specs(name, method_scores.TABLE),
    )
    @fails_in_words
    def scores_of_method(context: dg.AssetExecutionContext, project: ProjectResource) -> dg.MaterializeResult:
        ctx = project.context(context.run_id)
        result = method_scores.run(ctx, score.name, context.partition_key)
        found = checks.results(ctx, name, method_scores.TABLE, result.references)
        return materialized(ctx, result, plots.method_scores(ctx, result.references), check_results=found)

    return scores_of_method


def _used_scores() -> dict[str, list[Composition]]:
    return used_scores(loaded_project())


def _recipes_of(score: str) -> dg.PartitionMapping:
    """Each recipe with this score depends on the scores of its dataset."""
    project = loaded_project()
    mapping: dict[str, set[str]] = {}
    for name, recipe in project.recipes.items():
        if score in scores_of(project, [recipe]):
            mapping.setdefault(recipe.dataset, set()).add(name)
    return dg.StaticPartitionMapping(mapping)


METHOD_SCORES = [score_asset(variants) for variants in _used_scores().values()]


@dg.asset(
    deps=[
        dg.AssetDep(presel_scores, partition_mapping=dataset_to_recipes()),
        dg.AssetDep("dataset_manifest", partition_mapping=dataset_to_recipes()),
        *(dg.AssetDep(method_scores.stage_name(name), partition_mapping=_recipes_of(name)) for name in _used_scores()),
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
@fails_in_words
def selected_subset(context: dg.AssetExecutionContext, project: ProjectResource) -> dg.MaterializeResult:
    """Select the rows of a recipe."""
    ctx = project.context(context.run_id)
    result = selection.run(ctx, context.partition_key)
    found = checks.results(ctx, "selected_subset", "selected_subset", result.references)
    return materialized(ctx, result, plots.selection(ctx, context.partition_key), check_results=found)


@dg.asset(
    deps=[
        dg.AssetDep("dataset_manifest"),
        dg.AssetDep(selected_subset, partition_mapping=recipes_to_dataset()),
    ],
    partitions_def=datasets,
    group_name=GROUP,
    kinds={"parquet"},
    code_version=compare.COMPARE_CODE,
    automation_condition=REFRESH,
    description="The selections of a dataset side by side: how much they share, what they cover against random "
    "selections of the same size, what one keeps and another drops.",
    metadata=spec_metadata(compare.RECIPES_TABLE),
    check_specs=checks.specs("method_comparison", compare.RECIPES_TABLE),
)
@fails_in_words
def method_comparison(context: dg.AssetExecutionContext, project: ProjectResource) -> dg.MaterializeResult:
    """Compare the selections of a dataset."""
    ctx = project.context(context.run_id)
    result = compare.run(ctx, context.partition_key)
    found = checks.results(ctx, "method_comparison", compare.RECIPES_TABLE, result.references)
    return materialized(ctx, result, plots.comparison(ctx, context.partition_key), check_results=found)
