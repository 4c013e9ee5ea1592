"""What is trained on a selected subset, what it learned, and how it compares."""

import dagster as dg

from assets import checks, plots
from assets.reporting import materialized, spec_metadata
from assets.selections import selected_subset
from assets.signals import RETRY
from automation.partitions import (
    benchmarks,
    benchmarks_to_evaluations,
    challengers,
    champions_to_challengers,
    evaluations,
    recipes_to_evaluations,
    recipes_to_trained,
    trained_recipes,
)
from resources.compute import ComputeBackend
from resources.failures import fails_in_words
from resources.project import ProjectResource
from vsel_platform.config_evaluation import BASE
from vsel_platform.pipeline import evaluation as evaluating
from vsel_platform.pipeline import leaderboard as ranking
from vsel_platform.pipeline import leakage as leaking
from vsel_platform.pipeline import promotion as promoting
from vsel_platform.pipeline import training
from vsel_platform.pipeline.benchmarks import split_key

GROUP = "training"


@dg.asset(
    deps=[dg.AssetDep(selected_subset, partition_mapping=recipes_to_trained())],
    partitions_def=trained_recipes,
    group_name=GROUP,
    kinds={"parquet"},
    pool="gpu",
    retry_policy=RETRY,
    code_version=leaking.CODE,
    description="Questions of the benchmarks that stand in the selected rows: equal and nearly equal images, long "
    "texts in common. More of them than the project file allows stop the training.",
    metadata=spec_metadata("leakage"),
    check_specs=checks.specs("leakage", "leakage"),
)
@fails_in_words
def leakage(
    context: dg.AssetExecutionContext, project: ProjectResource, compute: ComputeBackend
) -> dg.MaterializeResult:
    """Look for the benchmarks in the selection of a recipe."""
    result = compute.run(context, "leakage", context.partition_key)
    ctx = project.context(context.run_id)
    found = checks.results(ctx, "leakage", "leakage", result.references)
    shown = plots.page(ctx, leaking.PAGE, {"recipe": context.partition_key})
    return materialized(ctx, result, shown, check_results=found)


@dg.asset(
    # Dagster knows no asset that depends on itself but in time: what a training goes on from is in the metadata, and in
    # the store's lineage.
    deps=[dg.AssetDep(selected_subset, partition_mapping=recipes_to_trained()), dg.AssetDep(leakage)],
    partitions_def=trained_recipes,
    group_name=GROUP,
    kinds={"pytorch", "huggingface"},
    pool="gpu",
    retry_policy=RETRY,
    code_version=training.CHECKPOINT_CODE,
    description="The base model with LoRA on the selected subset: an adapter in safetensors with its model card. "
    "It is trained on demand, never by itself.",
    check_specs=checks.adapter_specs("finetuned_checkpoint"),
)
@fails_in_words
def finetuned_checkpoint(
    context: dg.AssetExecutionContext, project: ProjectResource, compute: ComputeBackend
) -> dg.MaterializeResult:
    """Fine-tune on the subset of a recipe."""
    result = compute.run(context, "finetuned_checkpoint", context.partition_key)
    ctx = project.context(context.run_id)
    curve = plots.training_curve(ctx, "finetuned_checkpoint", "recipe", context.partition_key)
    found = checks.adapter_results(ctx, "finetuned_checkpoint", {"recipe": context.partition_key})
    return materialized(ctx, result, curve, check_results=found)


@dg.asset(
    partitions_def=benchmarks,
    group_name=GROUP,
    kinds={"parquet", "pytorch"},
    pool="gpu",
    retry_policy=RETRY,
    code_version=evaluating.CODE,
    description="What the base model answers on a benchmark: the ground that every checkpoint is compared with.",
    metadata=spec_metadata("evaluation"),
    check_specs=checks.specs("base_evaluation", "evaluation"),
)
@fails_in_words
def base_evaluation(
    context: dg.AssetExecutionContext, project: ProjectResource, compute: ComputeBackend
) -> dg.MaterializeResult:
    """Evaluate the base model on a benchmark."""
    result = compute.run(context, "base_evaluation", context.partition_key)
    ctx = project.context(context.run_id)
    found = checks.results(ctx, "base_evaluation", "evaluation", result.references)
    return materialized(ctx, result, plots.metrics(ctx, BASE, context.partition_key), check_results=found)


@dg.asset(
    deps=[
        dg.AssetDep(finetuned_checkpoint, partition_mapping=recipes_to_evaluations()),
        dg.AssetDep(base_evaluation, partition_mapping=benchmarks_to_evaluations()),
    ],
    partitions_def=evaluations,
    group_name=GROUP,
    kinds={"parquet", "pytorch"},
    pool="gpu",
    retry_policy=RETRY,
    code_version=evaluating.CODE,
    description="Metrics of a recipe's checkpoint on a benchmark with intervals, and what changed against the base "
    "model; partitions are recipe:benchmark. Every answer is in the table `answers`.",
    metadata=spec_metadata("evaluation"),
    check_specs=checks.specs("evaluation", "evaluation"),
)
@fails_in_words
def evaluation(
    context: dg.AssetExecutionContext, project: ProjectResource, compute: ComputeBackend
) -> dg.MaterializeResult:
    """Evaluate the checkpoint of a recipe on a benchmark."""
    result = compute.run(context, "evaluation", context.partition_key)
    ctx = project.context(context.run_id)
    found = checks.results(ctx, "evaluation", "evaluation", result.references)
    shown = plots.evaluation(ctx, *split_key(ctx, context.partition_key))
    return materialized(ctx, result, shown, check_results=found)


@dg.asset(
    deps=[dg.AssetDep(evaluation, partition_mapping=benchmarks_to_evaluations(reverse=True))],
    partitions_def=benchmarks,
    group_name=GROUP,
    kinds={"parquet"},
    code_version=ranking.CODE,
    description="Methods at budgets on a benchmark: against random selections and full data, with intervals that hold "
    "for all comparisons together. What cannot be told from random is marked so.",
    metadata=spec_metadata("leaderboard"),
    check_specs=checks.specs("leaderboard", "leaderboard"),
)
@fails_in_words
def leaderboard(context: dg.AssetExecutionContext, project: ProjectResource) -> dg.MaterializeResult:
    """Compare the evaluated recipes on a benchmark."""
    ctx = project.context(context.run_id)
    result = ranking.run(ctx, context.partition_key)
    found = checks.results(ctx, "leaderboard", "leaderboard", result.references)
    shown = plots.page(ctx, ranking.PAGE, {"benchmark": context.partition_key})
    return materialized(ctx, result, shown, check_results=found)


@dg.asset(
    deps=[dg.AssetDep(evaluation, partition_mapping=champions_to_challengers())],
    partitions_def=challengers,
    group_name=GROUP,
    kinds={"parquet"},
    code_version=promoting.CODE,
    description="Whether a recipe takes the place of the champion that it names: the ruling, its numbers, its reason.",
    metadata=spec_metadata("promotion"),
    check_specs=checks.specs("promotion", "promotion"),
)
@fails_in_words
def promotion(context: dg.AssetExecutionContext, project: ProjectResource) -> dg.MaterializeResult:
    """Rule about a recipe and its champion."""
    ctx = project.context(context.run_id)
    result = promoting.run(ctx, context.partition_key)
    found = checks.results(ctx, "promotion", "promotion", result.references)
    shown = plots.page(ctx, promoting.PAGE, {"recipe": context.partition_key})
    return materialized(ctx, result, shown, check_results=found)
