"""The model card of an adapter: what it was made from, by what, and under which terms it stands."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from vsel_platform.config import VlmSettings
from vsel_platform.config_training import LoraSettings
from vsel_platform.identity import hash_ids


def model_card(
    base: VlmSettings,
    settings: LoraSettings,
    *,
    base_fingerprint: str,
    sample_ids: Sequence[str],
    n_skipped: int,
    first_epoch_loss: float,
    last_epoch_loss: float,
    origin: Mapping[str, str],
) -> str:
    """README.md of a LoRA adapter; the same training gives the same text.

    `origin`: where the rows come from (data set, recipe, hash of the selection), as label -> text.
    """
    source = "".join(f"| {_cell(name)} | {_cell(value)} |\n" for name, value in origin.items())
    rows = "\n".join(f"| {name} | {value} |" for name, value in _flat(settings.model_dump()))
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft", "accelerate"))
    return f"""---
base_model: {base.model}
library_name: peft
tags: [lora, visual-instruction-tuning]
---

# LoRA adapter

| | |
|---|---|
| base model | {base.model} (revision: {base.revision or "not pinned"}) |
| fingerprint of the base model | {base_fingerprint} |
| template | {base.template or "default"} |
| dtype | {base.dtype} |
{source}| rows trained on | {len(sample_ids)} |
| hash of their ids | {hash_ids(sample_ids)} |
| rows left out (no answer, broken image) | {n_skipped} |
| mean loss of the first epoch | {first_epoch_loss:.4f} nat/token |
| mean loss of the last epoch | {last_epoch_loss:.4f} nat/token |
| trained with | {packages} |

Loss is over answer tokens only, the end token included; that of every step is in losses.json.

## Settings

| setting | value |
|---|---|
{rows}

## Licence

The adapter only works together with the base model and was trained on the rows named above: the licence of the base
model and the terms of the training data apply to it.
"""


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings as (dotted name, value)."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _cell(text: str) -> str:
    """A text as one cell of a Markdown table."""
    return " ".join(text.replace("|", "\\|").split())
