"""ScalSelect features, relative attention and three-condition losses on a 24-layer LLaVA against the released ways.

The model is a LLaVA of small width with random weights: 576 image tokens, 24 decoder layers. Both sides get the same
rows, tokens, pictures and weights in the same process, and take turns. The released ways run one row at a time, all
layers, eager attention, and keep every map (ScalSelect, Free2DS), or a pass of their own for each condition (losses).
Exit status 1 if a ratio or an agreement is missed.

    python benchmarks/bench_signals.py --rows 12
"""

import argparse
import io
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from bench_losses import TASKS, make_rows
from PIL import Image

from vsel_platform.models.llava import LlavaAdapter
from vsel_platform.models.templates import load_template
from vsel_platform.signals.attended_vision import attended_mean
from vsel_platform.signals.attention_maps import first_question
from vsel_platform.signals.losses import ALL_CONDITIONS, LossRow, answer_losses
from vsel_platform.signals.relative_attention import relative_maps, step_attention
from vsel_platform.signals.vision_representations import instruction_places, vision_representations

LAYERS, WIDTH, HEADS, PIXELS, PATCH = 24, 128, 4, 336, 14
ANSWER_TOKENS = 4
BATCH_ROWS = 4
TOLERANCE = 1e-5
LOSS_TOLERANCE = 1e-4
Rows = Sequence[LossRow]
Load = Callable[[str], Image.Image]
TARGETS = {"scalselect": 10.0, "relative attention": 4.0, "losses": 4.0}


@dataclass(frozen=True)
class Case:
    """One comparison: its name, both sides, and how far their results may differ."""

    name: str
    released: Callable[[], list[np.ndarray]]
    ours: Callable[[], list[np.ndarray]]
    tolerance: float


SMALL_TOWER = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 2}
SMALL_TEXT = {
    "hidden_size": WIDTH,
    "intermediate_size": 3 * WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
}


def make_model(
    tower: dict[str, int] = SMALL_TOWER,
    text: dict[str, int] = SMALL_TEXT,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> LlavaAdapter:
    """LLaVA-1.5's shape, at small width if nothing else is said: CLIP tower of 24 x 24 tokens, random weights."""
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
    bpe.train_from_iterator([load_template("vicuna_v1").system, *(" ".join(task) for task in TASKS)], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, extra_special_tokens=["<image>"], **special)
    side = PIXELS // PATCH
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(image_size=PIXELS, patch_size=PATCH, **tower),
        text_config=LlamaConfig(vocab_size=32_000, **text),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=side * side,
    )
    processor = CLIPImageProcessorPil(size={"shortest_edge": PIXELS}, crop_size={"height": PIXELS, "width": PIXELS})
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    with torch.device(device):
        model = LlavaForConditionalGeneration(config)
    torch.set_default_dtype(before)
    return LlavaAdapter(
        model.to(dtype),
        tokenizer,
        processor,
        load_template("vicuna_v1"),
        name="benchmark",
        weights="random",
        device=device,
        max_tokens=2048,
    )


def _pixels(model: LlavaAdapter, row: LossRow, load: Callable[[str], Image.Image]) -> torch.Tensor:
    return torch.from_numpy(np.stack([model.preprocess(load(image)) for image in row.images]))


def _eager(model: LlavaAdapter) -> Any:
    """The same weights with eager attention, the only one that gives maps."""
    model.model.set_attn_implementation("eager")
    return model.model


def _fused(model: LlavaAdapter) -> None:
    model.model.set_attn_implementation("sdpa")


def released_features(model: LlavaAdapter, rows: Rows, load: Load) -> list[np.ndarray]:
    """ScalSelect's feature pass: every layer's states and maps of one row, of which the first layer's are used."""
    found = []
    eager = _eager(model)
    for row in rows:
        rendered = model.render(row.turns, len(row.images))
        with torch.inference_mode():
            output = eager(
                input_ids=torch.from_numpy(rendered.input_ids)[None],
                pixel_values=_pixels(model, row, load),
                output_hidden_states=True,
                output_attentions=True,
            )
        vision = model.image_places(rendered)
        user = instruction_places(rendered, vision)
        attention = output.attentions[0][0].mean(dim=0).numpy()
        vector, _ = attended_mean(
            output.hidden_states[1][0, vision].numpy(), attention[np.ix_(user, vision)].mean(axis=0), 0.9
        )
        found.append(vector)
    _fused(model)
    return found


def our_features(model: LlavaAdapter, rows: Rows, load: Load) -> list[np.ndarray]:
    """The same vectors from the platform's signal."""
    batches = list(vision_representations(model, rows, load))
    vectors = {value.sample_id: value.vector for batch in batches for value in batch.values}
    return [vectors[row.sample_id] for row in rows]


def _prompts(model: LlavaAdapter, rows: Sequence[LossRow]) -> list[Any]:
    questions = [first_question(row.turns) for row in rows]
    return [model.render_prompt([("user", question[0])], 1) for question in questions if question is not None]


def released_maps(model: LlavaAdapter, rows: Rows, load: Load) -> list[np.ndarray]:
    """Free2DS's pass: `generate` with every map of every layer of the prompt and of each step."""
    found = []
    eager = _eager(model)
    for row, prompt in zip(rows, _prompts(model, rows), strict=True):
        ids = torch.from_numpy(prompt.input_ids)[None]
        with torch.inference_mode():
            output = eager.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                pixel_values=_pixels(model, row, load),
                max_new_tokens=ANSWER_TOKENS,
                do_sample=False,
                output_attentions=True,
                return_dict_in_generate=True,
            )
        vision = model.image_places(prompt)
        place = (int(vision[0]), int(vision[-1]) + 1)
        steps = [step_attention([layer[0].numpy() for layer in layers], place) for layers in output.attentions]
        found.append(relative_maps(np.stack(steps)))
    _fused(model)
    return found


def our_maps(model: LlavaAdapter, rows: Rows, load: Load) -> list[np.ndarray]:
    """The same maps: images and beginnings once, of every layer only the rows of the queries."""
    prompts = _prompts(model, rows)
    names = list(dict.fromkeys(row.images[0] for row in rows))
    projected = model.project(model.tower_features(np.stack([model.preprocess(load(name)) for name in names])))
    features = dict(zip(names, projected, strict=True))
    found: list[np.ndarray] = []
    for start in range(0, len(rows), BATCH_ROWS):
        part = slice(start, start + BATCH_ROWS)
        shown = [[features[row.images[0]]] for row in rows[part]]
        answers = model.generate(prompts[part], shown, max_tokens=ANSWER_TOKENS)
        found += [relative_maps(answer.attention) for answer in answers]
    return found


def released_losses(model: LlavaAdapter, rows: Rows, load: Load) -> list[np.ndarray]:
    """One pass per row and condition, logits at every position."""
    losses = []
    for condition in ALL_CONDITIONS:
        for row in rows:
            rendered = model.render(row.turns, len(row.images), condition)
            with torch.inference_mode():
                output = model.model(
                    input_ids=torch.from_numpy(rendered.input_ids)[None],
                    pixel_values=None if condition == "no_image" else _pixels(model, row, load),
                    labels=torch.from_numpy(rendered.labels)[None],
                )
            losses.append(np.array([float(output.loss)]))
    return losses


def our_losses(model: LlavaAdapter, rows: Rows, load: Load) -> list[np.ndarray]:
    """The same numbers in the same order."""
    batches = list(answer_losses(model, rows, load, conditions=ALL_CONDITIONS))
    means = {(v.condition, v.sample_id): v.loss_mean for batch in batches for v in batch.values}
    return [np.array([means[condition, row.sample_id]]) for condition in ALL_CONDITIONS for row in rows]


def timed(run: Callable[[], list[np.ndarray]]) -> tuple[float, list[np.ndarray]]:
    """Seconds and result."""
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def main() -> int:
    """Run both sides of every case in turn, and compare the best of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=12, help="rows")
    parser.add_argument("--rounds", type=int, default=2, help="rounds; the best of each side counts")
    options = parser.parse_args()
    model = make_model()
    rows, pictures = make_rows(options.rows, 0.5)
    decoded = {name: Image.open(io.BytesIO(data)) for name, data in pictures.items()}
    for picture in decoded.values():
        picture.load()
    load = decoded.__getitem__
    sides = {
        "scalselect": (released_features, our_features, TOLERANCE),
        "relative attention": (released_maps, our_maps, TOLERANCE),
        "losses": (released_losses, our_losses, LOSS_TOLERANCE),
    }
    cases = [
        Case(name, partial(theirs, model, rows, load), partial(ours, model, rows, load), tolerance)
        for name, (theirs, ours, tolerance) in sides.items()
    ]
    failed = False
    for case in cases:
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(options.rounds):
            seconds, expected = timed(case.released)
            times[0].append(seconds)
            seconds, found = timed(case.ours)
            times[1].append(seconds)
        difference = max(float(np.abs(a - b).max()) for a, b in zip(expected, found, strict=True))
        ratio = min(times[0]) / min(times[1])
        good = ratio >= TARGETS[case.name] and difference <= case.tolerance
        failed |= not good
        print(
            f"{case.name:20} released {min(times[0]):7.2f} s, ours {min(times[1]):6.2f} s: {ratio:5.1f} x "
            f"(at least {TARGETS[case.name]:g}), largest difference {difference:.1e} (at most {case.tolerance:g})"
            f"  {'ok' if good else 'MISSED'}"
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
