"""LoRA training of the embedded VLM against a plain loop: one row per forward and backward pass.

Both sides train the same adapter, from the same start, on the same rows in the same steps with the same learning
rates: the loop adds up the gradients of a step row by row, so that both must end at the same loss. It opens,
preprocesses and encodes the picture of every row, as a training script does that follows the released one at batch
size one. Exit status 1 if the ratio is missed or the losses differ.

    python benchmarks/bench_training.py --rows 240 --epochs 3
"""

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from bench_losses import make_rows
from PIL import Image

from vsel_platform.config import VlmSettings
from vsel_platform.config_training import LoraSettings
from vsel_platform.models.load import load_vlm
from vsel_platform.signals.losses import LossRow
from vsel_platform.training.adapter import add_lora, parameter_groups
from vsel_platform.training.lora import TrainingJob, train_lora
from vsel_platform.training.schedule import learning_rate_factor, step_plan

RATIO = 2.0
TOLERANCE = 2e-3
"""Largest difference of the mean losses of the last epoch [nat/token]: sums in another order over many steps."""
BASE = VlmSettings(model="embedded:demo", template="plain", dtype="float32", max_tokens=256)


def settings(epochs: float) -> LoraSettings:
    """The demo's training."""
    return LoraSettings(
        rank=16,
        alpha=32,
        dropout=0.0,
        learning_rate=5e-3,
        projector_learning_rate=2e-3,
        epochs=epochs,
        batch_rows=16,
        seed=1,
    )


def plain_loop(
    rows: Sequence[LossRow], lora: LoraSettings, load: Callable[[str], Image.Image]
) -> tuple[list[float], float]:
    """Mean loss of every step [nat/token], and the seconds of the steps."""
    model = load_vlm(BASE, "cpu")
    torch.manual_seed(lora.seed)
    peft_model = add_lora(model.model, model.parts, lora, base_name=BASE.model)
    optimizer = torch.optim.AdamW(parameter_groups(peft_model, model.parts, lora))
    ordered = sorted(rows, key=lambda row: row.sample_id)
    lengths = [len(model.render(row.turns, len(row.images))) for row in ordered]
    steps = step_plan(lengths, [bool(row.images) for row in ordered], lora).steps
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda n: learning_rate_factor(n, steps=len(steps), warmup_fraction=lora.warmup_fraction)
    )
    peft_model.train()
    losses: list[float] = []
    start = time.perf_counter()
    for (step,) in steps:
        chosen = [ordered[row] for row, _ in step]
        rendered = [model.render(row.turns, len(row.images)) for row in chosen]
        n_targets = sum(own.n_targets for own in rendered)
        total = 0.0
        for row, own in zip(chosen, rendered, strict=True):
            pixels = torch.stack([torch.from_numpy(model.preprocess(load(image))) for image in row.images])
            output: Any = peft_model(
                input_ids=torch.from_numpy(own.input_ids)[None],
                attention_mask=torch.ones(1, len(own), dtype=torch.long),
                pixel_values=pixels,
                labels=torch.from_numpy(own.labels)[None],
            )
            loss = output.loss * (own.n_targets / n_targets)
            loss.backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_([p for p in peft_model.parameters() if p.requires_grad], lora.max_grad_norm)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        losses.append(total)
    return losses, time.perf_counter() - start


def measure(n_rows: int, epochs: float, rounds: int) -> int:
    """Train on both sides in turns, print the best of each; exit status."""
    rows, pictures = make_rows(n_rows, 0.5)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for image, data in pictures.items():
            (folder / f"{image}.png").write_bytes(data)

        def load(image: str) -> Image.Image:
            with Image.open(folder / f"{image}.png") as picture:
                return picture.convert("RGB")

        lora = settings(epochs)
        ours, theirs = math.inf, math.inf
        for _ in range(rounds):
            losses, seconds = plain_loop(rows, lora, load)
            theirs = min(theirs, seconds)
            report = train_lora(BASE, rows, lora, load, folder / "adapter", TrainingJob(device="cpu"))
            # Everything that training does, loading the model apart: pictures, steps, and what is written.
            ours = min(ours, report.training_seconds)
        passes = round(n_rows * epochs)
        per_epoch = max(1, math.ceil(len(losses) / epochs))
        last = sum(losses[-per_epoch:]) / per_epoch
    difference = abs(last - report.last_epoch_loss)
    ratio = theirs / ours
    print(f"{n_rows} rows, {epochs:g} epochs, {report.steps} steps, {torch.get_num_threads()} threads")
    print(f"plain loop, one row per pass: {passes / theirs:8.1f} rows/s, loss of the last epoch {last:.4f}")
    print(f"train_lora:                   {passes / ours:8.1f} rows/s, loss {report.last_epoch_loss:.4f}")
    print(f"ratio {ratio:.2f} (at least {RATIO}), difference of the losses {difference:.1e} (at most {TOLERANCE})")
    return int(ratio < RATIO or not difference <= TOLERANCE)


def main() -> int:
    """Parse arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=480)
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    return measure(arguments.rows, arguments.epochs, arguments.rounds)


if __name__ == "__main__":
    sys.exit(main())
