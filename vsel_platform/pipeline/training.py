"""Stage `finetuned_checkpoint`: LoRA on a selected subset, from the base model or from another recipe's checkpoint."""

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from vsel_platform.config_training import LoraSettings, RuntimeSettings
from vsel_platform.identity import fingerprint
from vsel_platform.pipeline.artifacts import fetched
from vsel_platform.pipeline.context import Context, Inputs, StageResult, inputs_of
from vsel_platform.pipeline.models import confirm_weights, vlm_fingerprint
from vsel_platform.pipeline.trained import record_training
from vsel_platform.pipeline.training_rows import image_provider, training_rows
from vsel_platform.selection.manifest import selection_hash
from vsel_platform.storage.pointers import Pointer

CHECKPOINT_CODE = "finetuned_checkpoint-3"


def lora_of(ctx: Context, recipe: str) -> LoraSettings:
    """How a recipe's checkpoint is trained."""
    seed = ctx.project.recipe(recipe).training.seed
    settings = ctx.project.training.lora
    return settings if seed is None else settings.model_copy(update={"seed": seed})


def checkpoint_inputs(ctx: Context, recipe: str) -> Inputs:
    """What `finetuned_checkpoint` reads: the selected rows, the model it starts from, the LoRA settings."""
    pointers = [ctx.store.require("selected_subset", {"recipe": recipe}), *_parent(ctx, recipe)]
    return inputs_of(
        pointers,
        vlm=vlm_fingerprint(ctx.project.vlm),
        lora=lora_of(ctx, recipe).model_dump(),
        code=CHECKPOINT_CODE,
    )


def _parent(ctx: Context, recipe: str) -> list[Pointer]:
    """The checkpoint that the training goes on from, if there is one."""
    parent = ctx.project.recipe(recipe).training.continue_from
    return [ctx.store.require("finetuned_checkpoint", {"recipe": parent})] if parent else []


def checkpoint_is_current(ctx: Context, recipe: str) -> bool:
    """Whether the stored checkpoint was trained on the present selection, from the present model, with the present
    settings."""
    pointer = ctx.store.pointer("finetuned_checkpoint", {"recipe": recipe})
    return pointer is not None and pointer.input_fingerprint == checkpoint_inputs(ctx, recipe).fingerprint


def parent_is_current(ctx: Context, recipe: str) -> bool:
    """Whether what a recipe's training goes on from is there and current."""
    parent = ctx.project.recipe(recipe).training.continue_from
    return parent is None or (parent_is_current(ctx, parent) and checkpoint_is_current(ctx, parent))


def resolved_runtime(ctx: Context) -> RuntimeSettings:
    """How trainings run, with the paths made absolute."""
    runtime = ctx.project.training.runtime
    names = ("deepspeed", "fsdp", "log_dir")
    files = {name: ctx.project.resolve(path) for name in names if (path := getattr(runtime, name))}
    return runtime.model_copy(update=files)


def run_checkpoint(ctx: Context, recipe: str) -> StageResult:
    """Fine-tune on the recipe's selected subset with LoRA; a killed training is resumed."""
    from vsel_platform.training.lora import TrainingJob, train_lora
    from vsel_platform.training.resume import TrainingStates

    start = time.perf_counter()
    wanted, settings = checkpoint_inputs(ctx, recipe), lora_of(ctx, recipe)
    if ctx.project.benchmarks:
        ctx.store.require("leakage", {"recipe": recipe})  # raises if its check failed, and says what it found
    dataset = ctx.project.recipe(recipe).dataset
    ranked = ctx.store.read_partition("selected_subset", {"recipe": recipe}, ["rank", "sample_id"]).sort_by("rank")
    ids = ranked["sample_id"].to_pylist()
    rows = training_rows(ctx, dataset, ids)
    states = TrainingStates(ctx.store.files, f"training-{recipe}-{wanted.fingerprint}")
    origin = {"dataset": dataset, "recipe": recipe, "hash of the selection (as in its manifest)": selection_hash(ids)}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "adapter"
        parents = _parent(ctx, recipe)
        adapter = stack.enter_context(fetched(ctx, parents[0])) if parents else None
        if parents:
            origin["continued from"] = parents[0].reference
        report = train_lora(
            ctx.project.vlm,
            rows,
            settings,
            image_provider(ctx),
            directory,
            TrainingJob(
                device=ctx.project.compute.device,
                on_step=lambda step, total: ctx.progress("training steps", step, total),
                confirm=lambda weights: confirm_weights(ctx, vlm_fingerprint(ctx.project.vlm), weights),
                states=states,
                runtime=resolved_runtime(ctx),
                share=ctx.share,
                name=f"{ctx.project.name}-{recipe}",
            ),
            origin=origin,
            start_from=str(adapter) if adapter else None,
        )
        if not ctx.share.is_main:
            return StageResult("finetuned_checkpoint", {"recipe": recipe}, "", 0)
        pointer = ctx.store.publish_artifact(
            "finetuned_checkpoint",
            {"recipe": recipe},
            directory,
            fingerprint=fingerprint(vlm=vlm_fingerprint(ctx.project.vlm), code=CHECKPOINT_CODE),
            input_fingerprint=wanted.fingerprint,
            inputs=wanted.references,
            code_version=CHECKPOINT_CODE,
            run_id=ctx.run_id,
            metadata=report.to_dict(),
        )
    states.clear()
    passes = round(len(rows) * settings.epochs)
    spent = time.perf_counter() - start
    record_training(ctx, "finetuned_checkpoint", vlm_fingerprint(ctx.project.vlm), passes, report.to_dict(), spent)
    return StageResult(
        "finetuned_checkpoint",
        {"recipe": recipe},
        pointer.data_version,
        len(rows),
        computed=len(rows),
        seconds=spent,
        references=[pointer.reference],
        metadata=report.to_dict() | ({"continued from": parents[0].reference} if parents else {}),
    )
