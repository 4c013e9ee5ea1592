"""Signals: facts about one content under one model, computed once and shared by everything."""

import dagster as dg

from assets import checks, plots, signal_plots
from assets.annotations import images, samples
from assets.reporting import materialized, spec_metadata
from automation.partitions import datasets, shards
from resources.compute import ComputeBackend
from resources.failures import fails_in_words
from resources.project import ProjectResource
from vsel_platform.pipeline import embeddings, moments, reference, representations
from vsel_platform.pipeline import hidden_states as hidden
from vsel_platform.pipeline.models import (
    ATTENTION_CODE,
    EMBEDDING_CODE,
    HIDDEN_CODE,
    LOSS_CODE,
    REPRESENTATION_CODE,
    TEXT_EMBEDDING_CODE,
)
from vsel_platform.pipeline.text_embeddings import STAGE as QUESTIONS

GROUP = "signals"
RETRY = dg.RetryPolicy(max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL)


@dg.asset(
    deps=[images],
    partitions_def=shards,
    group_name=GROUP,
    kinds={"lancedb", "pytorch"},
    pool="gpu",
    retry_policy=RETRY,
    code_version=EMBEDDING_CODE,
    description="One vector per distinct image of the shard under the project's image encoder, in LanceDB. "
    "Images that another shard or an earlier, interrupted run embedded are not encoded again.",
    check_specs=checks.vector_specs("image_embeddings"),
)
@fails_in_words
def image_embeddings(
    context: dg.AssetExecutionContext, project: ProjectResource, compute: ComputeBackend
) -> dg.MaterializeResult:
    """Embed the images of a shard."""
    result = compute.run(context, "image_embeddings", context.partition_key)
    ctx = project.context(context.run_id)
    found = checks.vector_results(ctx, "image_embeddings", embeddings.STAGE, context.partition_key)
    return materialized(ctx, result, signal_plots.embeddings(ctx, context.partition_key), check_results=found)


@dg.asset(
    deps=[samples],
    partitions_def=shards,
    group_name=GROUP,
    kinds={"lancedb", "pytorch"},
    pool="gpu",
    retry_policy=RETRY,
    code_version=TEXT_EMBEDDING_CODE,
    description="One vector per distinct question of the shard under the project's text encoder, in LanceDB. "
    "A question that many rows ask is encoded once.",
    check_specs=checks.vector_specs("text_embeddings"),
)
@fails_in_words
def text_embeddings(
    context: dg.AssetExecutionContext, project: ProjectResource, compute: ComputeBackend
) -> dg.MaterializeResult:
    """Embed the questions of a shard."""
    result = compute.run(context, "text_embeddings", context.partition_key)
    ctx = project.context(context.run_id)
    found = checks.vector_results(ctx, "text_embeddings", QUESTIONS, context.partition_key)
    return materialized(ctx, result, signal_plots.questions(ctx, context.partition_key), check_results=found)


@dg.asset(
    deps=[samples, images],
    partitions_def=shards,
    group_name=GROUP,
    kinds={"parquet", "pytorch"},
    pool="gpu",
    retry_policy=RETRY,
    code_version=ATTENTION_CODE,
    description="Where two models look while they answer a row's first question in a word: the image tokens with the "
    "largest relative attention. Of every layer only the rows of the generated tokens are made.",
    metadata=spec_metadata("attention_maps"),
    check_specs=checks.specs("attention_maps", "attention_maps"),
)
@fails_in_words
def attention_maps(
    context: dg.AssetExecutionContext, project: ProjectResource, compute: ComputeBackend
) -> dg.MaterializeResult:
    """Record the attention of two models on the rows of a shard."""
    result = compute.run(context, "attention_maps", context.partition_key)
    ctx = project.context(context.run_id)
    found = checks.results(ctx, "attention_maps", "attention_maps", result.references)
    return materialized(ctx, result, signal_plots.attention(ctx, context.partition_key), check_results=found)


@dg.asset(
    deps=[samples, images],
    partitions_def=shards,
    group_name=GROUP,
    kinds={"lancedb", "pytorch"},
    pool="gpu",
    retry_policy=RETRY,
    code_version=REPRESENTATION_CODE,
    description="ScalSelect's vector of every row with an image: the mean of the image tokens that its instruction "
    "looks at, behind the first decoder layer. Vision tower, projector and one layer run, nothing deeper; nothing at "
    "all where the pass of base_losses gave them.",
    check_specs=checks.vector_specs("vision_representations"),
)
@fails_in_words
def vision_representations(
    context: dg.AssetExecutionContext, project: ProjectResource, compute: ComputeBackend
) -> dg.MaterializeResult:
    """Represent the rows of a shard."""
    result = compute.run(context, "vision_representations", context.partition_key)
    ctx = project.context(context.run_id)
    found = checks.vector_results(ctx, "vision_representations", representations.STAGE, context.partition_key)
    return materialized(
        ctx, result, signal_plots.row_vectors(ctx, representations.STAGE, context.partition_key), check_results=found
    )


@dg.asset(
    deps=[samples, images],
    partitions_def=shards,
    group_name=GROUP,
    kinds={"lancedb", "pytorch"},
    pool="gpu",
    retry_policy=RETRY,
    code_version=HIDDEN_CODE,
    description="Pooled hidden states of every row at chosen decoder layers: what methods cluster rows by that look at "
    "the model's activations. Nothing behind the deepest chosen layer runs; nothing at all where the pass of "
    "base_losses gave them.",
    check_specs=checks.vector_specs("hidden_states"),
)
@fails_in_words
def hidden_states(
    context: dg.AssetExecutionContext, project: ProjectResource, compute: ComputeBackend
) -> dg.MaterializeResult:
    """Pool the hidden states of the rows of a shard."""
    result = compute.run(context, "hidden_states", context.partition_key)
    ctx = project.context(context.run_id)
    found = checks.vector_results(ctx, "hidden_states", hidden.STAGE, context.partition_key)
    return materialized(
        ctx, result, signal_plots.row_vectors(ctx, hidden.STAGE, context.partition_key), check_results=found
    )


@dg.asset(
    deps=[samples, images],
    partitions_def=shards,
    group_name=GROUP,
    kinds={"parquet", "pytorch"},
    pool="gpu",
    retry_policy=RETRY,
    code_version=LOSS_CODE,
    op_tags={"dagster/priority": "1"},  # in a run of all signals, before what its pass gives besides
    description="Answer loss, entropy and EL2N of every row of the shard under the base model: as it is, without the "
    "question, and without the image. The three share the vision tower and, where the prompt allows, their beginning. "
    "The same pass gives vision representations and hidden states, where recipes need them and they are missing.",
    metadata=spec_metadata("losses"),
    check_specs=checks.specs("base_losses", "losses"),
)
@fails_in_words
def base_losses(
    context: dg.AssetExecutionContext, project: ProjectResource, compute: ComputeBackend
) -> dg.MaterializeResult:
    """Score all rows of a shard with the base model."""
    result = compute.run(context, "base_losses", context.partition_key)
    ctx = project.context(context.run_id)
    found = checks.results(ctx, "base_losses", "losses", result.references)
    return materialized(ctx, result, signal_plots.base_losses(ctx, context.partition_key), check_results=found)


@dg.asset(
    deps=[
        dg.AssetDep("dataset_manifest"),
        dg.AssetDep(vision_representations, partition_mapping=dg.AllPartitionMapping()),
    ],
    partitions_def=datasets,
    group_name=GROUP,
    kinds={"numpy"},
    code_version=moments.MOMENTS_CODE,
    description="Mean and scatter of the dataset's attended vision. New rows are added and removed rows are taken out, "
    "so that leverage scores stay exact without reading the others again.",
)
@fails_in_words
def representation_moments(context: dg.AssetExecutionContext, project: ProjectResource) -> dg.MaterializeResult:
    """Update the moments of a dataset."""
    ctx = project.context(context.run_id)
    result = moments.run(ctx, context.partition_key)
    return materialized(ctx, result, signal_plots.moments(ctx, context.partition_key))


@dg.asset(
    deps=[
        dg.AssetDep("dataset_manifest"),
        dg.AssetDep(samples, partition_mapping=dg.AllPartitionMapping()),
    ],
    partitions_def=datasets,
    group_name=GROUP,
    kinds={"parquet"},
    code_version=reference.SUBSET_CODE,
    description="The rows that get instructions first: a small share of the images of every task with all their "
    "rows, drawn by a stable hash, so that a grown dataset keeps its reference rows.",
    metadata=spec_metadata("reference_subset"),
    check_specs=checks.specs("reference_subset", "reference_subset"),
)
@fails_in_words
def reference_subset(context: dg.AssetExecutionContext, project: ProjectResource) -> dg.MaterializeResult:
    """Draw the reference subset of a dataset."""
    ctx = project.context(context.run_id)
    result = reference.run_subset(ctx, context.partition_key)
    found = checks.results(ctx, "reference_subset", "reference_subset", result.references)
    return materialized(ctx, result, plots.reference(ctx, context.partition_key), check_results=found)


@dg.asset(
    deps=[reference_subset],
    partitions_def=datasets,
    group_name=GROUP,
    kinds={"pytorch", "huggingface"},
    pool="gpu",
    retry_policy=RETRY,
    code_version=reference.MODEL_CODE,
    description="The base model with LoRA on the reference subset; it scores how much a question helps. "
    "It is kept while the subset has changed by less than `reference.refresh_growth`.",
    check_specs=checks.adapter_specs("reference_model"),
)
@fails_in_words
def reference_model(
    context: dg.AssetExecutionContext, project: ProjectResource, compute: ComputeBackend
) -> dg.MaterializeResult:
    """Train the reference model of a dataset."""
    result = compute.run(context, "reference_model", context.partition_key)
    ctx = project.context(context.run_id)
    curve = plots.training_curve(ctx, "reference_model", "dataset", context.partition_key)
    found = checks.adapter_results(ctx, "reference_model", {"dataset": context.partition_key})
    return materialized(ctx, result, curve, check_results=found)


@dg.asset(
    deps=[
        dg.AssetDep(samples),
        dg.AssetDep(images),
        dg.AssetDep(reference_model, partition_mapping=dg.AllPartitionMapping()),
    ],
    partitions_def=shards,
    group_name=GROUP,
    kinds={"parquet", "pytorch"},
    pool="gpu",
    retry_policy=RETRY,
    code_version=LOSS_CODE,
    description="Answer loss of the reference rows of the shard, with and without the question. "
    "Rows whose loss is stored are not scored again; a loss that is not a number is NULL and counted.",
    metadata=spec_metadata("losses"),
    check_specs=checks.specs("losses", "losses"),
)
@fails_in_words
def losses(
    context: dg.AssetExecutionContext, project: ProjectResource, compute: ComputeBackend
) -> dg.MaterializeResult:
    """Score the reference rows of a shard."""
    result = compute.run(context, "losses", context.partition_key)
    ctx = project.context(context.run_id)
    found = checks.results(ctx, "losses", "losses", result.references)
    return materialized(ctx, result, signal_plots.losses(ctx, context.partition_key), check_results=found)
