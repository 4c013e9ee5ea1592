"""A LLaVA of 7 billion parameters and DINOv2-L on a GPU, with random weights: how much of it is used.

    python benchmarks/bench_gpu.py                    # a GPU of 40 GiB or more, about three minutes
    python benchmarks/bench_gpu.py --device cpu --tiny  # small models, to see that it runs; nothing is required

1. Rate: products of 8,192 x 8,192 bfloat16 matrices, the best of several.
2. Loss pass: `answer_losses` under three conditions, pictures and rows from memory, two rows for each picture. Its rate
   is the operations that the rows need (tower, decoder at the tokens of packed rows without padding, output layer at
   the targets; `models.costs`) by the seconds.
3. Fused pass: the same with the vectors of ScalSelect and of COINCIDE on its way, against the loss pass.
4. DINOv2-L: `embed_images` of preprocessed pictures from memory, images per second.
5. LoRA: `train_loaded` of the same model, rank 128 in all linear layers of the language model, frozen tower. Its rate
   counts the decoder forward and backward to its inputs (twice the forward pass; frozen weights need no gradient, those
   of LoRA are below a percent) at tokens without padding, and the output layer at the targets, in the later steps.

Exit status 1 if a target is missed: half of the measured rate, 1.3 times the loss pass, 2,000 images per second, 40 %
of the measured rate.
"""

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_losses import make_rows
from bench_signals import PATCH, PIXELS, SMALL_TEXT, SMALL_TOWER, make_model
from PIL import Image

from vsel_platform.config import VlmSettings
from vsel_platform.config_training import LoraSettings
from vsel_platform.models.costs import decoder_of, tower_of
from vsel_platform.models.huggingface_encoder import HuggingFaceEncoder
from vsel_platform.models.llava import LlavaAdapter
from vsel_platform.models.packing import packed_length
from vsel_platform.signals.image_embeddings import embed_images
from vsel_platform.signals.losses import ALL_CONDITIONS, LossRow, answer_losses
from vsel_platform.signals.row_vectors import RowVectors
from vsel_platform.training.lora import TrainingJob, train_loaded

LLAVA_TOWER = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
LLAVA_TEXT = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
DINOV2_L = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
MATRIX, REPEATS = 8192, 20
RATE_SHARE, FUSED_RATIO, IMAGES_PER_S, LORA_SHARE = 0.5, 1.3, 2000.0, 0.4
BATCH_TOKENS = 32_768
DINO_PIXELS, DINO_BATCH = 224, 256


def seconds(device: str, work: Callable[[], Any]) -> float:
    """Seconds of some work, with everything that it started on the device."""

    def wait() -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)

    wait()
    start = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start


def matrix_rate(device: str, size: int) -> float:
    """Best rate of bfloat16 matrix products [operations/s]."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    torch.mm(a, b)
    return 2.0 * size**3 / min(seconds(device, lambda: torch.mm(a, b)) for _ in range(REPEATS))


def needed_operations(model: LlavaAdapter, rows: Sequence[LossRow]) -> float:
    """Operations that the three losses of all rows need: what rows of a picture share counts once, padding does not."""
    decoder, tower = decoder_of(model.model.config), tower_of(model.model.config, PIXELS, PIXELS)
    by_images: dict[tuple[str, ...], list[LossRow]] = {}
    for row in rows:
        by_images.setdefault(tuple(row.images), []).append(row)
    total = sum(len(images) for images in by_images) * tower.flops
    for images, members in by_images.items():
        seeing = [model.render(row.turns, len(images), c) for row in members for c in ("full", "no_question")]
        blind = [model.render(row.turns, len(images), "no_image") for row in members]
        parts = [packed_length(seeing), *(len(row) for row in blind)]
        total += sum(decoder.flops(n, decoder.layers, seen=n // 2) for n in parts)
        total += decoder.logit_flops(sum(row.n_targets for row in (*seeing, *blind)))
    return total


def loss_passes(device: str, model: LlavaAdapter, n_rows: int) -> tuple[float, float, float]:
    """Operations that the loss pass needs, its seconds, and those of the fused pass."""
    rows, encoded = make_rows(n_rows, 0.5)
    pictures = {name: model.preprocess(Image.open(io.BytesIO(data))) for name, data in encoded.items()}

    def run(some: Sequence[LossRow], vectors: RowVectors | None) -> None:
        for _ in answer_losses(
            model, some, pictures.__getitem__, conditions=ALL_CONDITIONS, batch_tokens=BATCH_TOKENS, vectors=vectors
        ):
            pass

    fused = RowVectors(hidden_layers=(), attention_share=0.9)
    for vectors in (None, fused):
        run(rows[: n_rows // 4], vectors)
    times = [(seconds(device, lambda: run(rows, None)), seconds(device, lambda: run(rows, fused))) for _ in range(2)]
    return needed_operations(model, rows), min(t for t, _ in times), min(t for _, t in times)


def lora_rate(device: str, model: LlavaAdapter, n_rows: int) -> tuple[float, float]:
    """Rate [operations/s] and rows per second of LoRA steps; the first quarter of the steps warms up."""
    rows, encoded = make_rows(n_rows, 0.5)
    pictures = {name: model.preprocess(Image.open(io.BytesIO(data))) for name, data in encoded.items()}
    settings = LoraSettings(projector_learning_rate=0.0, epochs=2.0, batch_rows=max(4, n_rows // 8))
    with tempfile.TemporaryDirectory() as folder:
        report = train_loaded(
            model,
            VlmSettings(model="random", batch_tokens=BATCH_TOKENS),
            rows,
            settings,
            pictures.__getitem__,
            Path(folder) / "adapter",
            TrainingJob(device=device),
        )
    decoder = decoder_of(model.model.config)
    rendered = [model.render(row.turns, len(row.images)) for row in rows]
    forward = sum(decoder.flops(len(row), decoder.layers, seen=len(row) // 2) for row in rendered)
    forward += decoder.logit_flops(sum(row.n_targets for row in rendered))
    return 2 * forward / len(rows) * report.rows_per_s, report.rows_per_s


def images_per_second(device: str, sizes: dict[str, int], count: int) -> float:
    """DINOv2 on preprocessed pictures in memory."""
    from transformers import Dinov2Config, Dinov2Model
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    with torch.device(device):
        model = Dinov2Model(Dinov2Config(image_size=518, patch_size=14, **sizes)).to(torch.bfloat16).eval()
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": DINO_PIXELS}, crop_size={"height": DINO_PIXELS, "width": DINO_PIXELS}
    )
    encoder = HuggingFaceEncoder(model, processor, name="dinov2", feature="cls", fingerprint="random", device=device)
    pixels = encoder.preprocess(Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)))
    # From memory: what a decoder would give is there already.
    encoder.preprocess = lambda image: image  # type: ignore[assignment,method-assign,return-value]
    loaders: list[tuple[str, Any]] = [(str(i), lambda: pixels) for i in range(count)]

    def run(part: Sequence[tuple[str, Any]]) -> None:
        for batch in embed_images(encoder, part, batch_size=DINO_BATCH):
            assert not batch.failures

    run(loaders[:DINO_BATCH])
    return count / min(seconds(device, lambda: run(loaders)) for _ in range(2))


def main() -> int:
    """Measure, print, and compare with the targets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", type=int, default=512, help="rows of the loss pass")
    parser.add_argument("--images", type=int, default=16_384, help="pictures for DINOv2")
    parser.add_argument("--tiny", action="store_true", help="small models and numbers; nothing is required")
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        sys.stderr.write("this benchmark needs a GPU; --device cpu --tiny shows that it runs\n")
        return 2
    small = options.tiny
    n_rows, n_images = (16, 512) if small else (options.rows, options.images)
    rate = matrix_rate(options.device, 512 if small else MATRIX)
    print(f"bfloat16 products: {rate / 1e12:.2f} TFLOP/s")
    tower, text = (SMALL_TOWER, SMALL_TEXT) if small else (LLAVA_TOWER, LLAVA_TEXT)
    model = make_model(tower, text, device=options.device, dtype=torch.bfloat16)
    operations, plain, fused = loss_passes(options.device, model, n_rows)
    share = operations / plain / rate
    print(
        f"loss pass: {n_rows} rows x 3 conditions, {(PIXELS // PATCH) ** 2} image tokens: {n_rows / plain:.1f} rows/s, "
        f"{operations / plain / 1e12:.2f} TFLOP/s, {share:.0%} of the products (at least {RATE_SHARE:.0%})"
    )
    print(f"fused pass: {fused / plain:.2f} x the loss pass (at most {FUSED_RATIO})")
    trained, speed = lora_rate(options.device, model, n_rows)
    print(
        f"LoRA: {speed:.1f} rows/s, {trained / 1e12:.2f} TFLOP/s, {trained / rate:.0%} of the products "
        f"(at least {LORA_SHARE:.0%})"
    )
    del model
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2} if small else DINOV2_L
    speed = images_per_second(options.device, sizes, n_images)
    print(f"DINOv2{'' if small else '-L'}: {speed:,.0f} images/s (at least {IMAGES_PER_S:,.0f})")
    good = (
        share >= RATE_SHARE and fused <= FUSED_RATIO * plain and speed >= IMAGES_PER_S and trained >= LORA_SHARE * rate
    )
    return 0 if good or small else 1


if __name__ == "__main__":
    sys.exit(main())
