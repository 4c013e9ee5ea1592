"""What is trained on a selected subset, and what it learned."""

import dagster as dg

from assets import checks, plots
from assets.reporting import materialized, spec_metadata
from assets.selections import selected_subset
from assets.signals import RETRY
from automation.partitions import recipes_to_trained, trained_recipes
from resources.compute import ComputeBackend
from resources.failures import fails_in_words
from resources.project import ProjectResource
from vsel_platform.pipeline import training

GROUP = "training"


@dg.asset(
    deps=[dg.AssetDep(selected_subset, partition_mapping=recipes_to_trained())],
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
    deps=[finetuned_checkpoint],
    partitions_def=trained_recipes,
    group_name=GROUP,
    kinds={"parquet", "pytorch"},
    pool="gpu",
    retry_policy=RETRY,
    code_version=training.EVALUATION_CODE,
    description="Exact match and loss per task on held-out rows, before and after fine-tuning: "
    "which tasks the model learned from the subset, and which it did not.",
    metadata=spec_metadata("evaluation"),
    check_specs=checks.specs("evaluation", "evaluation"),
)
@fails_in_words
def evaluation(
    context: dg.AssetExecutionContext, project: ProjectResource, compute: ComputeBackend
) -> dg.MaterializeResult:
    """Evaluate the checkpoint of a recipe."""
    result = compute.run(context, "evaluation", context.partition_key)
    ctx = project.context(context.run_id)
    found = checks.results(ctx, "evaluation", "evaluation", result.references)
    return materialized(ctx, result, plots.evaluation(ctx, context.partition_key), check_results=found)
