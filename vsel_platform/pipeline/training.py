"""Stages `finetuned_checkpoint` and `evaluation`: LoRA on a selected subset, and what it learned."""

import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from vsel_platform.errors import ConfigError
from vsel_platform.identity import fingerprint
from vsel_platform.pipeline.artifacts import fetched
from vsel_platform.pipeline.context import Context, Inputs, StageResult, inputs_of
from vsel_platform.pipeline.held_out import held_out_fingerprint, held_out_rows
from vsel_platform.pipeline.models import confirm_weights, vlm_fingerprint
from vsel_platform.pipeline.quality import publish_checked
from vsel_platform.pipeline.timing import record_rate
from vsel_platform.pipeline.training_rows import image_provider, training_rows
from vsel_platform.selection.manifest import selection_hash
from vsel_platform.tables import TABLES

CHECKPOINT_CODE = "finetuned_checkpoint-1"
EVALUATION_CODE = "evaluation-1"


def checkpoint_inputs(ctx: Context, recipe: str) -> Inputs:
    """What `finetuned_checkpoint` reads: the selected rows, the base model, the LoRA settings."""
    selection = ctx.store.require("selected_subset", {"recipe": recipe})
    return inputs_of(
        [selection],
        vlm=vlm_fingerprint(ctx.project.vlm),
        lora=ctx.project.training.lora.model_dump(),
        code=CHECKPOINT_CODE,
    )


def checkpoint_is_current(ctx: Context, recipe: str) -> bool:
    """Whether the stored checkpoint was trained on the present selection with the present settings."""
    pointer = ctx.store.pointer("finetuned_checkpoint", {"recipe": recipe})
    return pointer is not None and pointer.input_fingerprint == checkpoint_inputs(ctx, recipe).fingerprint


def run_checkpoint(ctx: Context, recipe: str) -> StageResult:
    """Fine-tune the base model on the recipe's selected subset with LoRA."""
    from vsel_platform.training.lora import train_lora

    start = time.perf_counter()
    wanted = checkpoint_inputs(ctx, recipe)
    dataset = ctx.project.recipe(recipe).dataset
    ranked = ctx.store.read_partition("selected_subset", {"recipe": recipe}, ["rank", "sample_id"]).sort_by("rank")
    ids = ranked["sample_id"].to_pylist()
    selection, rows = selection_hash(ids), training_rows(ctx, dataset, ids)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name) / "adapter"
        report = train_lora(
            ctx.project.vlm,
            rows,
            ctx.project.training.lora,
            image_provider(ctx),
            directory,
            device=ctx.project.compute.device,
            on_step=lambda step, total: ctx.progress("training steps", step, total),
            confirm=lambda weights: confirm_weights(ctx, vlm_fingerprint(ctx.project.vlm), weights),
            origin={"dataset": dataset, "recipe": recipe, "hash of the selection (as in its manifest)": selection},
        )
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
    passes = round(len(rows) * ctx.project.training.lora.epochs)
    record_rate(ctx, "finetuned_checkpoint", vlm_fingerprint(ctx.project.vlm), passes, time.perf_counter() - start)
    return StageResult(
        "finetuned_checkpoint",
        {"recipe": recipe},
        pointer.data_version,
        len(rows),
        computed=len(rows),
        seconds=time.perf_counter() - start,
        references=[pointer.reference],
        metadata=report.to_dict(),
    )


def evaluation_inputs(ctx: Context, recipe: str) -> Inputs:
    """What `evaluation` reads: the checkpoint and the held-out file."""
    checkpoint = ctx.store.require("finetuned_checkpoint", {"recipe": recipe})
    return inputs_of(
        [checkpoint],
        held_out=held_out_fingerprint(ctx),
        rows=ctx.project.training.evaluation_rows,
        code=EVALUATION_CODE,
    )


def evaluation_is_current(ctx: Context, recipe: str) -> bool:
    """Whether the stored evaluation is of the present checkpoint on the present held-out rows."""
    pointer = ctx.store.pointer("evaluation", {"recipe": recipe})
    return pointer is not None and pointer.input_fingerprint == evaluation_inputs(ctx, recipe).fingerprint


def run_evaluation(ctx: Context, recipe: str) -> StageResult:
    """Evaluate the base model and the recipe's checkpoint on the held-out rows.

    The base model's part does not depend on the recipe; it is taken from another recipe's evaluation if one
    on the same rows is stored.
    """
    from vsel_platform.evaluation.exact_match import evaluate
    from vsel_platform.models.load import load_vlm

    start = time.perf_counter()
    wanted = evaluation_inputs(ctx, recipe)
    rows, load = held_out_rows(ctx)
    if not rows:
        raise ConfigError("training.evaluation: the held-out file has no usable rows")
    base_name = fingerprint(vlm=vlm_fingerprint(ctx.project.vlm), rows=held_out_fingerprint(ctx), n=len(rows))
    records = _stored_base(ctx, base_name)
    device, tokens = ctx.project.compute.device, ctx.project.vlm.batch_tokens
    if not records:
        base = load_vlm(ctx.project.vlm, device)
        confirm_weights(ctx, vlm_fingerprint(ctx.project.vlm), base.fingerprint)
        records = _records("base", evaluate(base, rows, load, batch_tokens=tokens))
    with fetched(ctx, ctx.store.require("finetuned_checkpoint", {"recipe": recipe})) as adapter:
        tuned = load_vlm(ctx.project.vlm, device, adapter_dir=str(adapter))
        records += _records("tuned", evaluate(tuned, rows, load, batch_tokens=tokens))
    pointer = publish_checked(
        ctx,
        "evaluation",
        {"recipe": recipe},
        pa.Table.from_pylist(records, schema=TABLES["evaluation"].arrow_schema()),
        fingerprint=base_name,
        input_fingerprint=wanted.fingerprint,
        inputs=wanted.references,
        code_version=EVALUATION_CODE,
        run_id=ctx.run_id,
        metadata=_summary(records),
    )
    record_rate(ctx, "evaluation", vlm_fingerprint(ctx.project.vlm), len(rows), time.perf_counter() - start)
    return StageResult(
        "evaluation",
        {"recipe": recipe},
        pointer.data_version,
        pointer.rows,
        computed=len(rows),
        seconds=time.perf_counter() - start,
        references=[pointer.reference],
        metadata=_summary(records),
    )


def _stored_base(ctx: Context, base_name: str) -> list[dict[str, Any]]:
    for pointer in ctx.store.pointers("evaluation"):
        if pointer.fingerprint == base_name:
            return [row for row in ctx.store.read(pointer).to_pylist() if row["model"] == "base"]
    return []


def _records(model: str, scores: Any) -> list[dict[str, Any]]:
    return [
        {
            "model": model,
            "task": s.task,
            "n_answers": s.n_answers,
            "exact_match": s.exact_match,
            "loss_mean": s.loss_mean,
        }
        for s in scores
    ]


def _summary(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Exact match over all answers, of the base and of the tuned model."""
    summary: dict[str, Any] = {}
    for model in ("base", "tuned"):
        rows = [row for row in records if row["model"] == model]
        answers = sum(row["n_answers"] for row in rows)
        summary[f"exact_match_{model}"] = sum(r["exact_match"] * r["n_answers"] for r in rows) / max(answers, 1)
        summary["n_answers"] = answers
    return summary
