"""Drives recipes stage by stage in this process, without Dagster."""

from collections.abc import Callable

from vsel_platform.errors import VselError
from vsel_platform.pipeline import (
    attention,
    base_losses,
    clustering,
    compare,
    embeddings,
    evaluation,
    hidden_states,
    ingest,
    leaderboard,
    leakage,
    losses,
    method_scores,
    moments,
    promotion,
    reference,
    representations,
    scores,
    selection,
    text_embeddings,
    training,
)
from vsel_platform.pipeline.context import Context, StageResult
from vsel_platform.pipeline.outcome import outcome
from vsel_platform.pipeline.plan import Step, next_steps

MAX_STAGES = 100


def _ingest(ctx: Context, dataset: str) -> StageResult:
    result = ingest.run(ctx, dataset).manifest
    ctx.store.require("manifest", {"dataset": dataset})  # raises if its checks failed, and says which
    return result


def _leakage(ctx: Context, recipe: str) -> StageResult:
    result = leakage.run(ctx, recipe)
    ctx.store.require("leakage", {"recipe": recipe})  # raises if more is found than is allowed
    return result


_RUN: dict[str, Callable[[Context, str], StageResult]] = {
    "dataset_manifest": _ingest,
    "image_embeddings": embeddings.run,
    "vision_representations": representations.run,
    "hidden_states": hidden_states.run,
    "text_embeddings": text_embeddings.run,
    "attention_maps": attention.run,
    "base_losses": base_losses.run,
    "representation_moments": moments.run,
    "clusters": clustering.run,
    "reference_subset": reference.run_subset,
    "reference_model": reference.run_model,
    "losses": losses.run,
    "presel_scores": scores.run,
    "selected_subset": selection.run,
    compare.STAGE: compare.run,
    "leakage": _leakage,
    "finetuned_checkpoint": training.run_checkpoint,
    "base_evaluation": evaluation.run_base,
    "evaluation": evaluation.run,
    "leaderboard": leaderboard.run,
    "promotion": promotion.run,
}


def _run(ctx: Context, step: Step) -> StageResult:
    if step.asset in _RUN:
        return _RUN[step.asset](ctx, step.key)
    return method_scores.run(ctx, step.asset.removesuffix(method_scores.SUFFIX), step.key)


def drive(ctx: Context, recipes: list[str], *, train: bool, log: Callable[[str], None]) -> list[StageResult]:
    """Run stale stages until nothing is stale. Raises VselError if a stage does not become current."""
    results: list[StageResult] = []
    previous: list[Step] = []
    for _ in range(MAX_STAGES):
        steps = next_steps(ctx, recipes, train=train)
        if not steps:
            return results
        if steps == previous:
            raise VselError(f"{steps[0].target} was run but is still stale")
        for step in steps:
            result = _run(ctx, step)
            results.append(result)
            told = outcome(step.asset, result.metadata)
            log(
                f"{step.asset} [{step.key}] {result.rows:,} rows, {result.computed:,} computed, "
                f"{result.reused:,} reused, {result.seconds:.1f} s{': ' if told else ''}{told}"
            )
            if "warning" in result.metadata:
                log(f"warning: {result.metadata['warning']}")
        previous = steps
    raise VselError(f"not current after {MAX_STAGES} stages")
