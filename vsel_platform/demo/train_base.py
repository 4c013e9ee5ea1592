"""Trains the base checkpoint that the package ships: `python -m vsel_platform.demo.train_base`.

Alignment only, as in LLaVA's first stage, but with the language model trained too, because there is no pretrained one
of this size: names and captions of drawings that neither the pool nor the evaluation has. Needs a source checkout.
"""

import argparse
import json
import logging
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

from vsel_platform.demo.alignment import alignment_rows
from vsel_platform.demo.artwork import package_versions
from vsel_platform.demo.base_card import write_card
from vsel_platform.demo.dataset import DEFAULT_SEED, plan_rows
from vsel_platform.demo.pictures import Picture
from vsel_platform.demo.rows import Row
from vsel_platform.demo.tokens import train_tokenizer
from vsel_platform.demo.tower import IMAGE_TOKENS, EffLiteConfig, register_tower
from vsel_platform.demo.vlm import (
    BASE_DIR,
    BOS,
    EOS,
    IMAGE,
    PAD,
    SECOND_DIR,
    TEMPLATE,
    is_published,
    load_base,
    make_processor,
)
from vsel_platform.evaluation.exact_match import evaluate
from vsel_platform.models.llava import LlavaAdapter
from vsel_platform.models.templates import load_template
from vsel_platform.models.vlm import RenderedRow

logger = logging.getLogger("train_base")
_FEATURE_BATCH = 64
_LOG_EVERY = 200
_MAX_TOKENS = 256


@dataclass(frozen=True)
class BaseSettings:
    """Sizes of the language model, and how it is trained (the defaults made the shipped checkpoint)."""

    vocabulary: int = 2500
    hidden: int = 128
    intermediate: int = 320
    layers: int = 4
    heads: int = 4
    embedding_std: float = 0.09
    feature_dropout: float = 0.2
    label_smoothing: float = 0.1
    epochs: float = 2.0
    batch_rows: int = 16
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    warmup_steps: int = 100
    max_grad_norm: float = 1.0
    seed: int = DEFAULT_SEED


SECOND = BaseSettings(hidden=96, intermediate=240, layers=3, seed=DEFAULT_SEED + 1)
"""A smaller model with another start, for methods that compare two models."""


@dataclass(frozen=True)
class ModelRow:
    """A demo row in the form that the evaluation takes; the picture's path stands for its identity."""

    sample_id: str
    task: str
    turns: tuple[tuple[str, str], ...]
    images: tuple[str, ...]


def model_row(row: Row, number: int) -> ModelRow:
    """The row with roles, and the image tag in front of its first question."""
    turns = []
    for index, (question, answer) in enumerate(row.turns):
        tag = f"{IMAGE}\n" if index == 0 and row.picture else ""
        turns += [("user", f"{tag}{question}".rstrip("\n")), ("assistant", answer)]
    return ModelRow(f"{number:06d}", row.task, tuple(turns), (row.picture.path,) if row.picture else ())


def new_model(settings: BaseSettings, processor: LlavaProcessor) -> LlavaForConditionalGeneration:
    """A LLaVA with random projector and language model on the published tower."""
    tokenizer = processor.tokenizer
    torch.manual_seed(settings.seed)
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden,
        intermediate_size=settings.intermediate,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
        bos_token_id=tokenizer.convert_tokens_to_ids(BOS),
        eos_token_id=tokenizer.convert_tokens_to_ids(EOS),
    )
    config = LlavaConfig(
        vision_config=EffLiteConfig(),
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_seq_length=IMAGE_TOKENS,
        tie_word_embeddings=True,
    )
    register_tower()
    model = LlavaForConditionalGeneration(config)
    # Alignment never uses most words of later answers, and LoRA leaves embeddings as they are: rows of length about 1
    # keep every word within reach.
    torch.nn.init.normal_(model.get_input_embeddings().weight, std=settings.embedding_std)
    return model


def tower_features(adapter: LlavaAdapter, pictures: Sequence[Picture]) -> torch.Tensor:
    """Tokens [n, 16, 768] of the frozen tower; sets the tower's `token_mean` and `token_std` from these pictures."""
    batches = []
    for start in range(0, len(pictures), _FEATURE_BATCH):
        drawn = [picture.draw() for picture in pictures[start : start + _FEATURE_BATCH]]
        batches.append(adapter.tower_features(np.stack([adapter.preprocess(image) for image in drawn])))
    features = torch.cat(batches)
    tower = adapter.model.model.vision_tower
    tower.token_mean.copy_(features.mean(dim=(0, 1)))
    tower.token_std.copy_(features.std(dim=(0, 1)).clamp_min(1e-3))
    standardised: torch.Tensor = (features - tower.token_mean) / tower.token_std
    return standardised


def train(adapter: LlavaAdapter, rows: Sequence[Row], settings: BaseSettings) -> dict[str, Any]:
    """Train projector and language model on the rows; returns what happened, for the card."""
    pictures = {row.picture.path: row.picture for row in rows if row.picture}
    start = time.monotonic()
    features = tower_features(adapter, list(pictures.values()))
    feature_s = time.monotonic() - start
    place = {path: number for number, path in enumerate(pictures)}
    examples = [_example(adapter, row, place) for row in rows]
    adapter.model.model.vision_tower.requires_grad_(False)
    parameters = [parameter for parameter in adapter.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(_groups(parameters, settings), lr=0.0, betas=settings.betas)
    steps = math.ceil(settings.epochs * len(examples) / settings.batch_rows)
    start, losses = time.monotonic(), []
    adapter.model.train()
    for step, chosen in zip(range(steps), _batches(len(examples), settings), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * _schedule(step, steps, settings.warmup_steps)
        loss = _loss(adapter, [examples[i] for i in chosen], features, settings)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
        optimizer.step()
        losses.append(float(loss.detach()))
        if step % _LOG_EVERY == 0:
            elapsed = time.monotonic() - start
            logger.info("step %d of %d, loss %.3f, %.0f s", step, steps, losses[-1], elapsed)
    adapter.model.eval()
    return {
        "rows": len(rows),
        "pictures": len(pictures),
        "steps": steps,
        "feature_seconds": round(feature_s, 1),
        "train_seconds": round(time.monotonic() - start, 1),
        "mean_loss_of_last_200_steps": round(sum(losses[-200:]) / len(losses[-200:]), 4),
        "trained_parameters": sum(parameter.numel() for parameter in parameters),
        "threads": torch.get_num_threads(),
    }


def _example(adapter: LlavaAdapter, row: Row, place: dict[str, int]) -> tuple[RenderedRow, int]:
    ready = model_row(row, 0)
    return adapter.render(ready.turns, len(ready.images)), place[ready.images[0]]


def _batches(n: int, settings: BaseSettings) -> Iterator[list[int]]:
    generator = torch.Generator().manual_seed(settings.seed)
    while True:
        order = torch.randperm(n, generator=generator).tolist()
        yield from (order[start : start + settings.batch_rows] for start in range(0, n, settings.batch_rows))


def _schedule(step: int, steps: int, warmup: int) -> float:
    """Factor of the learning rate: linear warm-up, then half a cosine down to 0."""
    return min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _groups(parameters: Sequence[torch.nn.Parameter], settings: BaseSettings) -> list[dict[str, Any]]:
    """Weight decay on matrices of layers alone: not on embeddings, biases and norms."""
    decayed = [p for p in parameters if p.ndim == 2 and p.shape[0] != settings.vocabulary]
    kept = [p for p in parameters if p.ndim != 2 or p.shape[0] == settings.vocabulary]
    return [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": kept, "weight_decay": 0.0}]


def _loss(
    adapter: LlavaAdapter,
    batch: Sequence[tuple[RenderedRow, int]],
    features: torch.Tensor,
    settings: BaseSettings,
) -> torch.Tensor:
    shown = torch.nn.functional.dropout(features[[place for _, place in batch]], settings.feature_dropout)
    projected = adapter.project(shown)
    states, targets, _ = adapter.target_states([[row] for row, _ in batch], [[image] for image in projected])
    return torch.nn.functional.cross_entropy(adapter.logits(states), targets, label_smoothing=settings.label_smoothing)


def save_base(model: LlavaForConditionalGeneration, processor: LlavaProcessor, directory: Path) -> None:
    """Write the trained weights in float16 (safetensors), the configuration and the tokenizer."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = {
        name: tensor.to(torch.float16).contiguous()
        for name, tensor in model.state_dict().items()
        if not is_published(name)
    }
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "model.safetensors").chmod(0o644)
    model.config.save_pretrained(directory)
    processor.tokenizer.backend_tokenizer.save(str(directory / "tokenizer.json"))


def measure(model: LlavaForConditionalGeneration, processor: LlavaProcessor, rows: Sequence[Row]) -> dict[str, Any]:
    """Exact match and answer loss per task on held-out rows."""
    pictures = {row.picture.path: row.picture for row in rows if row.picture}
    ready = [model_row(row, number) for number, row in enumerate(rows)]
    adapter = make_adapter(model, processor)
    scores = evaluate(adapter, ready, lambda path: pictures[path].draw())
    return {
        score.task: {
            "answers": score.n_answers,
            "exact_match": round(score.exact_match, 4),
            "loss": round(score.loss_mean, 4),
        }
        for score in scores
    }


def make_adapter(model: LlavaForConditionalGeneration, processor: LlavaProcessor) -> LlavaAdapter:
    """The model behind the platform's protocol, with the demo's template."""
    return LlavaAdapter(
        model,
        processor.tokenizer,
        processor.image_processor,
        load_template(TEMPLATE),
        name="demo base",
        weights="in training",
        device="cpu",
        max_tokens=_MAX_TOKENS,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, save, load what was saved, measure it, write the card."""
    parser = argparse.ArgumentParser(description="Train the demo's base checkpoint.")
    parser.add_argument("--second", action="store_true", help="the second, smaller model")
    parser.add_argument("--out", type=Path, default=None, help="directory of the checkpoint; default: the package's")
    parser.add_argument("--epochs", type=float, default=BaseSettings.epochs, help="passes over the alignment rows")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    settings = replace(SECOND if options.second else BaseSettings(), epochs=options.epochs)
    out = options.out or (SECOND_DIR if options.second else BASE_DIR)
    # The same drawings and rows for both models: only sizes and start differ.
    plan = plan_rows(seed=DEFAULT_SEED)
    rows = alignment_rows(plan.splits.alignment, DEFAULT_SEED)
    # The vocabulary also covers the words of the pool; a tokenizer learns no answers from them.
    texts = [text for row in [*rows, *plan.pool] for turn in row.turns for text in turn]
    processor = make_processor(train_tokenizer(texts, settings.vocabulary))
    model = new_model(settings, processor)
    report = train(make_adapter(model, processor), rows, settings)
    save_base(model, processor, out)
    # What is measured is what is shipped: loaded back from float16.
    scores = measure(*load_base(directory=out), plan.evaluation)
    command = "python -m vsel_platform.demo.train_base" + (" --second" if options.second else "")
    write_card(out, command, settings=asdict(settings), report=report, scores=scores, packages=package_versions())
    print(json.dumps(scores, indent=1))


if __name__ == "__main__":
    main()
