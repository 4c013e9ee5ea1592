"""Two-condition answer loss on a demo-sized VLM against the released way: one row at a time, two separate passes.

Both sides get the same rows, tokens, pictures and weights in the same process. The baseline opens and preprocesses
the picture, runs the vision tower and makes logits for every position, for each condition anew, as PreSel's
`loss_ppl_calc.py` does. Exit status 1 if the ratio or the agreement is missed.

    python benchmarks/bench_losses.py --rows 256
"""

import argparse
import importlib.util
import io
import sys
import time
from collections.abc import Callable
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

    bpe = Tokenizer(models.BPE(unk_token="<unk>"))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=3000, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    words = [load_template("vicuna_v1").system, *(" ".join(task) for task in TASKS)]
    bpe.train_from_iterator(words, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        extra_special_tokens=["<image>"],
    )
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


def make_rows(n_rows: int) -> tuple[list[LossRow], dict[str, bytes]]:
    """Rows of one to three turns, each with its own picture (PNG bytes by image id)."""
    rng = np.random.default_rng(0)
    rows, pictures = [], {}
    for i in range(n_rows):
        turns: list[tuple[str, str]] = []
        for number, task in enumerate(rng.permutation(len(TASKS))[: int(rng.integers(1, 4))]):
            question, answer = TASKS[task]
            turns += [("user", question if number else f"<image>\n{question}"), ("assistant", answer)]
        rows.append(LossRow(f"row{i:05}", turns, [f"image{i:05}"]))
        buffer = io.BytesIO()
        coarse = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))
        coarse.resize((PIXELS, PIXELS), Image.Resampling.BICUBIC).save(buffer, "PNG")
        pictures[f"image{i:05}"] = buffer.getvalue()
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


def main() -> int:
    """Run both sides and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=256, help="rows, each with its own picture")
    parser.add_argument("--model", choices=("auto", "demo", "random"), default="auto")
    parser.add_argument("--template", default="vicuna_v1", choices=("vicuna_v1", "plain"))
    options = parser.parse_args()
    has_demo = importlib.util.find_spec("vsel_platform.demo.vlm") is not None
    kind = options.model if options.model != "auto" else ("demo" if has_demo else "random")
    model = LlavaAdapter(
        *(demo_model() if kind == "demo" else random_model()),
        load_template(options.template),
        name=kind,
        weights=kind,
        device="cpu",
        max_tokens=2048,
    )
    rows, pictures = make_rows(options.rows)
    load: Callable[[str], Image.Image] = lambda image: Image.open(io.BytesIO(pictures[image]))  # noqa: E731
    batched(model, rows[:8], load)
    baseline(model, rows[:8], load)
    start = time.perf_counter()
    ours = batched(model, rows, load)
    middle = time.perf_counter()
    theirs = baseline(model, rows, load)
    end = time.perf_counter()
    difference = float(np.abs(np.array(ours) - np.array(theirs)).max())
    ratio = (end - middle) / (middle - start)
    print(f"model {kind}, {options.rows} rows x 2 conditions, {torch.get_num_threads()} threads, {options.template}")
    print(f"one row at a time, two passes, full logits: {options.rows / (end - middle):8.1f} rows/s")
    print(f"answer_losses:                              {options.rows / (middle - start):8.1f} rows/s")
    print(f"ratio {ratio:.1f} (at least {RATIO}), largest difference {difference:.1e} (at most {TOLERANCE})")
    return 0 if ratio >= RATIO and difference <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
