"""Two-condition answer loss on a demo-sized VLM against the released way: one row at a time, two separate passes.

Both sides get the same rows, tokens, pictures and weights in the same process, and take turns. The baseline opens and
preprocesses the picture, runs the vision tower and makes logits for every position, for each condition anew, as
PreSel's `loss_ppl_calc.py` does. Exit status 1 if the ratio or the agreement is missed.

    python benchmarks/bench_losses.py --rows 256
"""

import argparse
import io
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image

from vsel_platform.models.llava import LlavaAdapter
from vsel_platform.models.templates import load_template
from vsel_platform.signals.losses import CONDITIONS, LossRow, answer_losses

RATIO = 4.0
TOLERANCE = 1e-4
PIXELS = 128
TASKS = (
    ("What colour is it mostly?", "It is mostly yellow."),
    ("How many are there?", "There are four of them."),
    ("Which group does it belong to? Answer with one phrase.", "Animals and nature."),
    ("What is shown in this picture?", "A drawing of a grinning face with smiling eyes."),
)


def random_model() -> tuple[Any, Any, Any]:
    """A model of the demo's shape with random weights: Llama 4 x 128, 16 image tokens, a ViT as a cheap tower."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        PreTrainedTokenizerFast,
    )
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    trainer = trainers.BpeTrainer(
        vocab_size=3000,
        special_tokens=[*special.values(), "<image>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words = [load_template("vicuna_v1").system, *(" ".join(task) for task in TASKS)]
    bpe.train_from_iterator(words, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, extra_special_tokens=["<image>"], **special)
    tower = CLIPVisionConfig(
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=3,
        image_size=PIXELS,
        patch_size=PIXELS // 4,
    )
    text = LlamaConfig(
        vocab_size=3000,
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=4,
        num_attention_heads=4,
        tie_word_embeddings=True,
    )
    config = LlavaConfig(
        vision_config=tower,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        image_seq_length=16,
    )
    processor = CLIPImageProcessorPil(size={"shortest_edge": PIXELS}, crop_size={"height": PIXELS, "width": PIXELS})
    torch.manual_seed(0)
    return LlavaForConditionalGeneration(config), tokenizer, processor


def demo_model() -> tuple[Any, Any, Any]:
    """The embedded demo model: a frozen EfficientNet-Lite0 tower, Llama 4 x 128."""
    from vsel_platform.demo.vlm import load_base

    model, processor = load_base("cpu")
    return model, processor.tokenizer, processor.image_processor


def has_demo_model() -> bool:
    """Whether the embedded model's weights are there."""
    from vsel_platform.demo.vlm import BASE_DIR

    return (BASE_DIR / "model.safetensors").is_file()


def make_rows(n_rows: int, pictures_per_row: float) -> tuple[list[LossRow], dict[str, bytes]]:
    """Rows of one to three turns, and the pictures that they show (PNG bytes by image id)."""
    rng = np.random.default_rng(0)
    rows: list[LossRow] = []
    pictures: dict[str, bytes] = {}
    for i in range(n_rows):
        turns: list[tuple[str, str]] = []
        for number, task in enumerate(rng.permutation(len(TASKS))[: int(rng.integers(1, 4))]):
            question, answer = TASKS[task]
            turns += [("user", question if number else f"<image>\n{question}"), ("assistant", answer)]
        image = f"image{int(i * pictures_per_row):05}"
        rows.append(LossRow(f"row{i:05}", turns, [image]))
        coarse = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        coarse.resize((PIXELS, PIXELS), Image.Resampling.BICUBIC).save(buffer, "PNG")
        pictures.setdefault(image, buffer.getvalue())
    return rows, pictures


def baseline(model: LlavaAdapter, rows: list[LossRow], load: Callable[[str], Image.Image]) -> list[float]:
    """Mean loss per condition and row, the released way."""
    losses = []
    for condition in CONDITIONS:
        for row in rows:
            rendered = model.render(row.turns, len(row.images), condition)
            pixels = torch.from_numpy(np.stack([model.preprocess(load(image)) for image in row.images]))
            with torch.inference_mode():
                output = model.model(
                    input_ids=torch.from_numpy(rendered.input_ids)[None],
                    pixel_values=pixels,
                    attention_mask=torch.ones(1, len(rendered), dtype=torch.long),
                    labels=torch.from_numpy(rendered.labels)[None],
                )
            losses.append(float(output.loss))
    return losses


def batched(model: LlavaAdapter, rows: list[LossRow], load: Callable[[str], Image.Image]) -> list[float]:
    """The same numbers in the same order from `answer_losses`."""
    values = [value for batch in answer_losses(model, rows, load) for value in batch.values]
    by_key = {(value.condition, value.sample_id): value.loss_mean for value in values}
    return [float(by_key[condition, row.sample_id] or np.nan) for condition in CONDITIONS for row in rows]


@contextmanager
def unpadded_tower(kind: str) -> Iterator[None]:
    """The demo's tower pads to a fixed number of pictures on a CPU; a single picture shall not pay for that."""
    if kind != "demo":
        yield
        return
    from vsel_platform.demo import efficientnet

    chunk = efficientnet.CPU_CHUNK
    efficientnet.CPU_CHUNK = 1
    try:
        yield
    finally:
        efficientnet.CPU_CHUNK = chunk


def timed(run: Callable[[], list[float]]) -> tuple[float, list[float]]:
    """Seconds and result."""
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def main() -> int:
    """Run both sides in turn and compare the best of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=256, help="rows to score")
    parser.add_argument(
        "--pictures-per-row",
        type=float,
        default=0.82,
        help="distinct pictures per row; the demo's pool has 4,557 pictures in 5,532 rows",
    )
    parser.add_argument("--repeats", type=int, default=3, help="turns of each side, of which the best counts")
    parser.add_argument("--model", choices=("auto", "demo", "random"), default="auto")
    parser.add_argument("--template", default="plain", choices=("vicuna_v1", "plain"))
    options = parser.parse_args()
    kind = options.model if options.model != "auto" else ("demo" if has_demo_model() else "random")
    model = LlavaAdapter(
        *(demo_model() if kind == "demo" else random_model()),
        load_template(options.template),
        name=kind,
        weights=kind,
        device="cpu",
        max_tokens=2048,
    )
    rows, pictures = make_rows(options.rows, options.pictures_per_row)

    def load(image: str) -> Image.Image:
        return Image.open(io.BytesIO(pictures[image]))

    ours_s, theirs_s = float("inf"), float("inf")
    for _ in range(options.repeats):
        seconds, ours = timed(lambda: batched(model, rows, load))
        ours_s = min(ours_s, seconds)
        with unpadded_tower(kind):
            seconds, theirs = timed(lambda: baseline(model, rows, load))
        theirs_s = min(theirs_s, seconds)
    difference = float(np.abs(np.array(ours) - np.array(theirs)).max())
    ratio = theirs_s / ours_s
    print(
        f"{kind} model, template {options.template}, {options.rows} rows x 2 conditions, "
        f"{len(pictures)} pictures, {torch.get_num_threads()} threads"
    )
    print(f"one row at a time, two passes, full logits: {options.rows / theirs_s:8.1f} rows/s")
    print(f"answer_losses:                              {options.rows / ours_s:8.1f} rows/s")
    print(f"ratio {ratio:.1f} (at least {RATIO}), largest difference {difference:.1e} (at most {TOLERANCE})")
    return 0 if ratio >= RATIO and difference <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
