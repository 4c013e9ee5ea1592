"""Batched greedy answers of the embedded VLM against one question at a time with `generate` of transformers.

Both sides get the same questions (the demo's held-out rows), pictures from files, and the same weights in the same
process. The baseline opens, preprocesses and encodes the picture of every question and generates with batch size one,
as LLaVA's `model_vqa_loader.py` does. Exit status 1 if the ratio is missed or one answer differs.

    python benchmarks/bench_evaluation.py --questions 400
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from vsel_platform.config import VlmSettings
from vsel_platform.demo.dataset import ensure_dataset
from vsel_platform.evaluation.answering import QuestionRow, answer_questions, question_row, rows_of_a_batch
from vsel_platform.evaluation.benchmark import BenchmarkFiles
from vsel_platform.evaluation.formats.rows import FORMAT
from vsel_platform.models.load import load_vlm
from vsel_platform.pipeline.lookup import open_image
from vsel_platform.signals.windows import WINDOW_ROWS, WindowOptions

RATIO = 4.0
MAX_NEW_TOKENS = 16
BASE = VlmSettings(model="embedded:demo", template="plain", dtype="float32", max_tokens=256)


def one_at_a_time(rows: Sequence[QuestionRow], images: Path, model: object) -> tuple[list[str], float]:
    """Answers, and the seconds that they took."""
    from vsel_platform.models.llava import LlavaAdapter

    assert isinstance(model, LlavaAdapter)
    answers = []
    start = time.perf_counter()
    for row in rows:
        prompt = model.render_prompt(row.turns, len(row.images))
        ids = torch.from_numpy(prompt.input_ids)[None]
        pictures = [open_image(str(images / name), max_pixels=10**8) for name in row.images]
        pixels = [torch.from_numpy(model.preprocess(picture)) for picture in pictures]
        with torch.inference_mode():
            found = model.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                **({"pixel_values": torch.stack(pixels)} if pixels else {}),
                do_sample=False,
                max_new_tokens=MAX_NEW_TOKENS,
                pad_token_id=0,
            )
        answers.append(model.text_of(found[0, ids.shape[1] :].numpy()))
    return answers, time.perf_counter() - start


def kept_together(model: object) -> int:
    """Questions in a window, as in the platform's evaluations."""
    found = rows_of_a_batch(model, WindowOptions().batch_tokens, MAX_NEW_TOKENS)  # type: ignore[arg-type]
    return min(WINDOW_ROWS, found)


def batched(rows: Sequence[QuestionRow], images: Path, model: object) -> tuple[list[str], float]:
    """Answers, and the seconds that they took."""
    start = time.perf_counter()
    found = [
        answer.text or ""
        for window in answer_questions(
            model,  # type: ignore[arg-type]
            rows,
            lambda name: open_image(str(images / name), max_pixels=10**8),
            max_new_tokens=MAX_NEW_TOKENS,
            options=WindowOptions(window_rows=kept_together(model)),
        )
        for answer in window
    ]
    return found, time.perf_counter() - start


def measure(n_questions: int, rounds: int) -> int:
    """Answer on both sides in turns, print the best of each; exit status."""
    dataset = ensure_dataset()
    questions = FORMAT.read(BenchmarkFiles(str(dataset.folder / "evaluation.json")))[:n_questions]
    rows = [question_row(question, losses=False) for question in questions]
    model = load_vlm(BASE, "cpu")
    theirs = ours = float("inf")
    for _ in range(rounds):
        expected, seconds = one_at_a_time(rows, dataset.images, model)
        theirs = min(theirs, seconds)
        found, seconds = batched(rows, dataset.images, model)
        ours = min(ours, seconds)
    different = sum(a != b for a, b in zip(expected, found, strict=True))
    ratio = theirs / ours
    print(f"{len(rows)} questions, at most {MAX_NEW_TOKENS} tokens each, {torch.get_num_threads()} threads")
    print(f"one at a time, generate: {len(rows) / theirs:7.1f} questions/s")
    print(f"answer_questions:        {len(rows) / ours:7.1f} questions/s")
    print(f"ratio {ratio:.2f} (at least {RATIO}), different answers {different} (none)")
    return int(ratio < RATIO or different > 0)


def main() -> int:
    """Parse arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    return measure(arguments.questions, arguments.rounds)


if __name__ == "__main__":
    sys.exit(main())
